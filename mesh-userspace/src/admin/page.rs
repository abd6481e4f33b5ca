//! The page at `/`: what this is, and where everything else is. Plain HTML, no script.

use std::fmt::Write as _;

use super::{AccelerationState, Status, router::ENDPOINTS};

/// The page for an agent in this state.
pub fn render(status: &Status) -> String {
    let acceleration = match status.acceleration.state {
        AccelerationState::On => "on",
        AccelerationState::Off => "off",
    };
    let mut page = String::from(concat!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Zerohop</title>\n<style>\n",
        "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}\n",
        "td{padding:.2rem 1rem .2rem 0;vertical-align:top}code{white-space:nowrap}\n",
        "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}\n",
        "</style></head><body>\n<h1>Zerohop</h1>\n",
    ));
    // Writing to a String does not fail.
    let _ = writeln!(
        page,
        "<p>Agent {} of node <b>{}</b>: snapshot {}, {} local pods, acceleration {} ({}).</p>",
        escape(&status.version),
        escape(&status.node),
        status.snapshot,
        status.pods.len(),
        acceleration,
        escape(&status.acceleration.reason),
    );
    if let Some(error) = &status.last_config_error {
        let _ = writeln!(
            page,
            "<p>Last error of the configuration: {}</p>",
            escape(error)
        );
    }
    page.push_str("<table>\n");
    for (path, method, line) in ENDPOINTS {
        let name = if *method == "GET" {
            format!("<a href=\"{path}\"><code>{path}</code></a>")
        } else {
            format!("<code>{path}</code>")
        };
        let _ = writeln!(
            page,
            "<tr><td>{method}</td><td>{name}</td><td>{}</td></tr>",
            escape(line)
        );
    }
    page.push_str(concat!(
        "</table>\n<p>The same, to read in a terminal: <code>meshctl status</code>, ",
        "<code>meshctl services</code>, <code>meshctl explain</code>.</p>\n</body></html>\n",
    ));
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
