//! Who may ask.
//!
//! A page of another site, open in a browser of this machine, can send requests here too. It must not learn anything, under its
//! own address or under a name of its own that leads to this machine (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use super::Answer;

/// What a server is asked under.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The name, and port, of a proxy before it.
    pub(super) public_host: Option<Arc<str>>,
}

/// Why a request with these headers is refused, if it is.
///
/// On the loopback, `Host` must be one of the names that this machine has for itself, or the proxy's. A server that others may reach
/// has names that it does not know, so there any will do. In both, `Origin` must be the host's own or the proxy's, where a browser
/// sends one; a proxy may have added the encryption.
pub(super) fn refusal(headers: &HeaderMap, names: &Names) -> Option<Answer> {
    let address = names.address;
    let is_public = |name: &str| {
        names
            .public_host
            .as_deref()
            .is_some_and(|host| name.eq_ignore_ascii_case(host))
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forbidden = |sentence: &str| Some(Answer::refusal(StatusCode::FORBIDDEN, sentence));
    let host = text(header::HOST);
    if address.ip().is_loopback() && !host.is_some_and(|host| is_ours(host, address) || is_public(host)) {
        return forbidden(
            "this address is for this machine alone: the Host header must name the loopback and the port",
        );
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = text(header::ORIGIN).and_then(|origin| {
            let plain = origin.strip_prefix("http://");
            plain.or_else(|| origin.strip_prefix("https://"))
        });
        if !origin.is_some_and(|origin| Some(origin) == host || is_public(origin)) {
            return forbidden("a page of another site may not ask here");
        }
    }
    None
}

/// Whether a `Host` header names this machine and the port.
fn is_ours(host: &str, address: SocketAddr) -> bool {
    let port = address.port();
    let name = match host.strip_suffix(&format!(":{port}")) {
        Some(name) => name,
        // The port of HTTP is left out.
        None if port == 80 => host,
        None => return false,
    };
    let bare = address.ip().to_string();
    name.eq_ignore_ascii_case("localhost") || ["127.0.0.1", "[::1]", &bare].contains(&name)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn status(address: &str, host: Option<&'static str>, origin: Option<&'static str>) -> Option<u16> {
        status_behind(None, address, host, origin)
    }

    fn status_behind(
        proxy: Option<&str>,
        address: &str,
        host: Option<&'static str>,
        origin: Option<&'static str>,
    ) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let names = Names {
            address: address.parse().unwrap(),
            public_host: proxy.map(Arc::from),
        };
        refusal(&headers, &names).map(|answer| answer.status().as_u16())
    }

    #[test]
    fn the_loopback_is_asked_by_its_own_names_alone() {
        let loopback = "127.0.0.1:7878";
        for host in ["127.0.0.1:7878", "localhost:7878", "LocalHost:7878", "[::1]:7878"] {
            assert_eq!(status(loopback, Some(host), None), None, "{host}");
        }
        for host in [
            "evil.example:7878",
            "localhost",
            "localhost:80",
            "localhost:7878.evil.example",
            "evil.example@localhost:7878",
            "",
        ] {
            assert_eq!(status(loopback, Some(host), None), Some(403), "{host}");
        }
        assert_eq!(status(loopback, None, None), Some(403));
        assert_eq!(status("127.0.0.1:80", Some("localhost"), None), None);
        assert_eq!(status("[::1]:7878", Some("[::1]:7878"), None), None);
        assert_eq!(status("127.0.0.2:7878", Some("127.0.0.2:7878"), None), None);
    }

    #[test]
    fn pages_of_other_sites_do_not_ask() {
        for address in ["127.0.0.1:7878", "0.0.0.0:7878"] {
            let from = |origin| status(address, Some("localhost:7878"), Some(origin));
            assert_eq!(from("http://localhost:7878"), None);
            assert_eq!(from("https://localhost:7878"), None);
            for origin in [
                "http://evil.example",
                "https://evil.example",
                "ftp://localhost:7878",
                "null",
                "http://localhost:80",
            ] {
                assert_eq!(from(origin), Some(403), "{origin}");
            }
        }
    }

    #[test]
    fn a_proxy_passes_its_own_name_on_or_the_servers() {
        let (proxy, ours) = (Some("box.example"), "127.0.0.1:7878");
        for host in ["box.example", "BOX.example", ours] {
            assert_eq!(
                status_behind(proxy, ours, Some(host), Some("https://box.example")),
                None,
                "{host}"
            );
            let other = status_behind(proxy, ours, Some(host), Some("https://evil.example"));
            assert_eq!(other, Some(403), "{host}");
        }
        assert_eq!(status_behind(proxy, ours, Some("evil.example"), None), Some(403));
        assert_eq!(
            status(ours, Some("box.example"), Some("https://box.example")),
            Some(403)
        );
    }

    #[test]
    fn a_server_for_others_has_names_that_it_does_not_know() {
        assert_eq!(status("0.0.0.0:7878", Some("box.example:7878"), None), None);
    }
}
