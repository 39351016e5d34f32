//! Budgets and rates.

use super::Transcript;
use crate::support::Gateway;

#[test]
fn budgets() {
    let gateway = Gateway::start();
    Transcript::new(&gateway.home)
        .show("budget status")
        .run("budget set global 20 daily")
        .run("budget set agent:tester '1M tokens' total")
        .run("budget set agent:tester 2.50 monthly")
        .show("budget status")
        .run("budget set agent:tester 3 monthly")
        .run("budget clear agent:tester")
        .run("budget clear agent:tester")
        .run("budget status")
        .check("budgets");
}

#[test]
fn rates() {
    let gateway = Gateway::start();
    Transcript::new(&gateway.home)
        .show("ratelimit status")
        .run("ratelimit set global 600")
        .run("ratelimit set agent:tester 60 --concurrent 4")
        .show("ratelimit status")
        .run("ratelimit clear agent:tester")
        .run("ratelimit status")
        .check("rates");
}
