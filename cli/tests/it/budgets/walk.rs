//! With nothing left, and with the kill switch on, no route of any provider leads anywhere.

use std::collections::BTreeMap;

use crate::support::{Home, Mock, Request};

/// Every route of every built-in provider, as a request that fits it: its wildcards filled in.
fn routes() -> Vec<(String, String, String)> {
    let catalogue: toml_edit::DocumentMut = include_str!("../../../../conf/providers.toml").parse().unwrap();
    let mut routes = Vec::new();
    for (provider, entry) in catalogue.iter() {
        for (_, patterns) in entry["routes"].as_table_like().unwrap().iter() {
            for pattern in patterns.as_array().unwrap() {
                let (method, path) = pattern.as_str().unwrap().split_once(' ').unwrap();
                let path = path.replace("**", "v1").replace("{model}", "gpt-4o").replace('*', "x");
                let method = if method == "*" { "POST" } else { method };
                routes.push((provider.to_owned(), method.to_owned(), path));
            }
        }
    }
    routes
}

/// A gateway before all built-in providers, each with a key and at the test's provider.
fn gateway_before_all(mock: &Mock) -> Home {
    let home = Home::new();
    let mut config = "[daemon]\nport = 0\n[metrics]\nlisten = \"\"\n".to_owned();
    let mut keys = BTreeMap::new();
    for (provider, _, _) in routes() {
        if keys.insert(provider.clone(), ()).is_none() {
            config.push_str(&format!(
                "[providers.{provider}]\nupstream = \"http://{}\"\nlocal = true\n",
                mock.address
            ));
        }
    }
    home.write_config(&config);
    home.run(["init", "--non-interactive"]).expect(0);
    for provider in keys.keys() {
        let added = home.command(["vault", "add", provider, "-"]).input("sk-test-0SENTINEL0").run();
        assert!(matches!(added.code, Some(0..=2)), "{added:?}");
    }
    home
}

#[test]
fn no_route_is_a_way_around_an_exhausted_budget_or_the_kill_switch() {
    let mock = Mock::start();
    let home = gateway_before_all(&mock);
    let mut mint = vec!["agent", "mint", "walker"];
    for class in ["generate", "embed", "metadata", "count", "file", "admin", "mint"] {
        mint.extend(["--route", class]);
    }
    let token = home.run(mint).expect(0).stdout.trim().to_owned();
    let serving = home.run(["--json", "start", "-d"]).expect(0).json();
    let address = serving["address"].as_str().unwrap().parse().unwrap();
    let walk = |status: u16, code: &str| {
        for (provider, method, path) in routes() {
            let target = format!("/{provider}{path}");
            let body = if method == "POST" { r#"{"input":"x"}"# } else { "" };
            let request = Request::new(&method, &target).field("Content-Type", "application/json").body(body);
            let response = crate::support::Client::tcp(address).ask(&request.bearer(&token));
            assert_eq!((response.status(), response.code().as_str()), (status, code), "{method} {target}");
        }
    };
    home.run(["budget", "set", "global", "0 tokens", "total"]).expect(0);
    walk(429, "budget_exceeded");
    home.run(["budget", "clear", "global"]).expect(0);
    home.run(["kill"]).expect(0);
    walk(403, "killed");
    home.run(["unkill"]).expect(0);
    for provider in home.run(["--json", "vault", "list"]).expect(0).json()["keys"].as_array().unwrap() {
        home.run(["revoke", provider["provider"].as_str().unwrap()]).expect(0);
    }
    home.run(["revoke", "ollama"]).expect(0);
    home.run(["revoke", "lmstudio"]).expect(0);
    home.run(["revoke", "vllm"]).expect(0);
    walk(403, "provider_revoked");
    assert_eq!(mock.connections(), 0, "nothing reached a provider");
}
