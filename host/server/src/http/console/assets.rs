//! The files of the page, out of the binary.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::bus::Bus;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the page may do: load from here, and nothing else. No script or style stands in its text.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; object-src 'none'";

/// A file of `host/server/console`, and what it is.
struct Asset {
    path: &'static str,
    form: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($path:literal $form:expr;)*) => {
        [$(Asset {
            path: concat!("/console/", $path),
            form: $form,
            text: include_str!(concat!("../../../console/", $path)),
        }),*]
    };
}

const INDEX: Asset = Asset {
    path: "/",
    form: HTML,
    text: include_str!("../../../console/index.html"),
};

static ASSETS: [Asset; 18] = assets! {
    "style.css" CSS;
    "icon.svg" SVG;
    "main.js" SCRIPT;
    "api.js" SCRIPT;
    "dom.js" SCRIPT;
    "words.js" SCRIPT;
    "charts.js" SCRIPT;
    "dialog.js" SCRIPT;
    "overview.js" SCRIPT;
    "mix.js" SCRIPT;
    "history.js" SCRIPT;
    "policies.js" SCRIPT;
    "letters.js" SCRIPT;
    "alerts.js" SCRIPT;
    "journey.js" SCRIPT;
    "vendor/uplot/uPlot.iife.min.js" SCRIPT;
    "vendor/uplot/uPlot.min.css" CSS;
    "vendor/uplot/LICENSE" TEXT;
};

pub(super) fn router() -> Router<Bus> {
    let served = std::iter::once(&INDEX).chain(&ASSETS);
    served.fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move || async move { serve(asset) }))
    })
}

fn serve(asset: &'static Asset) -> Response {
    let headers = [
        (header::CONTENT_TYPE, asset.form),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A host that was replaced brings its own page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (StatusCode::OK, headers, asset.text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn files(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }

    #[test]
    fn every_file_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
        let mut found = BTreeSet::new();
        files(&root, &mut found);
        let unserved = ["index.html", "README.md"];
        found.retain(|path| !unserved.iter().any(|name| path.ends_with(name)));
        let served = ASSETS.iter().map(|asset| {
            let path = asset.path.trim_start_matches("/console/");
            root.join(path).to_string_lossy().into_owned()
        });
        assert_eq!(served.collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn nothing_stands_in_the_text_of_the_page() {
        for inline in ["<script>", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!INDEX.text.contains(inline), "{inline}");
        }
    }
}
