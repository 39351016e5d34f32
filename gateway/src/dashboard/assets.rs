//! The files of the page. They are the same for everybody and tell nothing.

/// A file, and where it is.
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        Asset {
            path: concat!("/dashboard/", $path),
            kind: $kind,
            text: include_str!(concat!("assets/", $file)),
        }
    };
}

pub(super) const ALL: [Asset; 9] = [
    asset!("", "text/html; charset=utf-8", "index.html"),
    asset!("style.css", "text/css; charset=utf-8", "style.css"),
    asset!("app.js", SCRIPT, "app.js"),
    asset!("server.js", SCRIPT, "server.js"),
    asset!("dom.js", SCRIPT, "dom.js"),
    asset!("tables.js", SCRIPT, "tables.js"),
    asset!("charts.js", SCRIPT, "charts.js"),
    asset!("icon.svg", "image/svg+xml", "icon.svg"),
    asset!("manifest.webmanifest", "application/manifest+json", "manifest.webmanifest"),
];
