//! The owner's page over real sockets: who comes in, who does not, and what it changes.

mod entrance;
mod page;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::sentinel::files;
use crate::support::{Client, Gateway, KEYS, Request, Response, Setup, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const DATA: [&str; 3] = ["/dashboard/events", "/dashboard/history", "/dashboard/risk/1"];
const FILES: [&str; 9] = [
    "",
    "style.css",
    "app.js",
    "server.js",
    "dom.js",
    "tables.js",
    "charts.js",
    "icon.svg",
    "manifest.webmanifest",
];

/// A browser that was let in.
struct Browser {
    address: SocketAddr,
    cookie: String,
    token: String,
}

fn start() -> Gateway {
    start_with("")
}

fn start_with(metrics: &str) -> Gateway {
    // The table of metrics begins in what comes before, so its keys can go on here.
    Gateway::start_with(&Setup { metrics: "127.0.0.1:0", tables: metrics.to_owned(), ..Setup::default() })
}

/// The address of a new link, and its secret.
#[track_caller]
fn link(gateway: &Gateway) -> (SocketAddr, String) {
    let told = gateway.run(["--json", "dashboard"]).expect(0).json();
    let url = told["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (address, secret) = url.split_once("/dashboard/#").unwrap();
    (address.parse().unwrap(), secret.to_owned())
}

/// A request as the page makes it.
fn of_page(address: SocketAddr, method: &str, path: &str) -> Request {
    let request = Request::new(method, path).without("Host").field("Host", &address.to_string());
    let request = request.field("Sec-Fetch-Site", "same-origin");
    match method {
        "POST" => {
            request.field("Origin", &format!("http://{address}")).field("Content-Type", "application/json")
        }
        _ => request,
    }
}

fn log_in(address: SocketAddr, secret: &str) -> Response {
    let body = json!({ "secret": secret }).to_string();
    Client::tcp(address).ask(&of_page(address, "POST", "/dashboard/login").body(body))
}

impl Browser {
    #[track_caller]
    fn of(gateway: &Gateway) -> Self {
        let (address, secret) = link(gateway);
        let response = log_in(address, &secret).expect(200);
        let cookie = response.head.get("set-cookie").unwrap().to_owned();
        let attributes = format!("; Path=/dashboard/; HttpOnly; SameSite=Strict; Max-Age={}", 12 * 60 * 60);
        let cookie = cookie.strip_suffix(&attributes).unwrap_or_else(|| panic!("{cookie}")).to_owned();
        assert!(cookie.starts_with(&format!("tokfence_{}=", address.port())), "{cookie}");
        Self { address, cookie, token: response.json()["token"].as_str().unwrap().to_owned() }
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let request = of_page(self.address, method, path);
        request.field("Cookie", &self.cookie).field("X-Tokfence-Page", &self.token)
    }

    fn ask(&self, request: &Request) -> Response {
        Client::tcp(self.address).ask(request)
    }

    fn get(&self, path: &str) -> Response {
        self.ask(&self.request("GET", path))
    }

    fn change(&self, what: &Value) -> Response {
        self.ask(&self.request("POST", "/dashboard/change").body(what.to_string()))
    }

    /// The newest event, from a stream of its own.
    #[track_caller]
    fn event(&self) -> Value {
        let mut client = Client::tcp(self.address);
        client.send(&self.request("GET", "/dashboard/events").bytes());
        let head = client.head();
        assert_eq!((head.status, head.get("content-type")), (200, Some("text/event-stream")));
        next_event(&mut client)
    }
}

#[track_caller]
fn next_event(client: &mut Client) -> Value {
    let mut text = Vec::new();
    client.read_until(&mut text, "\n\n");
    let text = String::from_utf8(text).unwrap();
    let document = text.strip_prefix("data: ").and_then(|text| text.split("\n\n").next());
    serde_json::from_str(document.unwrap_or_else(|| panic!("{text}"))).unwrap()
}

#[track_caller]
fn code(response: Response, status: u16) -> String {
    response.expect(status).json()["error"]["code"].as_str().unwrap().to_owned()
}
