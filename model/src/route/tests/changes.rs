use super::*;
use crate::name::ServicePort;

fn pairs(fields: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    fields.iter().map(pair).collect()
}

#[test]
fn headers_are_set_then_added_then_removed() {
    let mut headers = HeaderMap::from_iter(pairs(&[("x-kept", "0"), ("x-gone", "0")]));
    headers.append("x-set", HeaderValue::from_static("0"));
    headers.append("x-set", HeaderValue::from_static("1"));
    let change = HeaderChange {
        set: pairs(&[("x-set", "2"), ("x-brief", "0")]),
        add: pairs(&[("x-kept", "1"), ("x-set", "3")]),
        remove: vec![HeaderName::from_static("x-gone"), HeaderName::from_static("x-brief")],
    };
    change.apply(&mut headers);
    let wanted = [("x-kept", "0"), ("x-kept", "1"), ("x-set", "2"), ("x-set", "3")];
    let mut read: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    read.sort_unstable();
    assert_eq!(read, wanted);
}

/// The table at `HTTPPathModifier.replacePrefixMatch`, and its edges.
#[test]
fn a_prefix_is_replaced_element_by_element() {
    for (path, old, new, wanted) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
        ("*", "/", "/xyz", "*"),
    ] {
        let matched = PathMatch::Prefix(old.into());
        let change = PathChange::ReplacePrefix(new.into());
        assert_eq!(change.apply(&matched, path), wanted, "{path}: {old} becomes {new}");
    }
}

#[test]
fn a_rewrite_keeps_the_query() {
    let asked = Asked::get("cart", "/foo/bar?a=b?c");
    let matched = PathMatch::Prefix("/foo".into());
    let rewrite = |path| Rewrite { host: None, path }.path_and_query(&matched, &asked.head());
    assert_eq!(rewrite(None), None);
    assert_eq!(rewrite(Some(PathChange::ReplaceFull("/x".into()))).as_deref(), Some("/x?a=b?c"));
    assert_eq!(rewrite(Some(PathChange::ReplaceFull("".into()))).as_deref(), Some("/?a=b?c"));
    assert_eq!(rewrite(Some(PathChange::ReplacePrefix("/x".into()))).as_deref(), Some("/x/bar?a=b?c"));
}

#[test]
fn a_prefix_that_did_not_match_is_not_replaced() {
    let change = PathChange::ReplacePrefix("/xyz".into());
    for matched in [exact("/foo").path, regex("/fo+").path, prefix("/bar").path] {
        assert_eq!(change.apply(&matched, "/foo"), "/foo", "{matched}");
    }
}

#[test]
fn a_redirect_says_where_to_go() {
    let nothing = || Redirect { scheme: None, host: None, port: None, path: None, status: StatusCode::FOUND };
    let https = || Redirect { scheme: Some("https".into()), ..nothing() };
    for (what, redirect, authority, port, wanted) in [
        ("nothing changes", nothing(), "cart", 80, "http://cart/foo?a=b"),
        ("the port that was dialled holds", nothing(), "Cart:8080", 8080, "http://cart:8080/foo?a=b"),
        ("a host", Redirect { host: Some("shop".into()), ..nothing() }, "cart", 80, "http://shop/foo?a=b"),
        ("a port", Redirect { port: Some(8080), ..nothing() }, "cart", 80, "http://cart:8080/foo?a=b"),
        (
            "the default port is not named",
            Redirect { port: Some(80), ..nothing() },
            "cart:81",
            81,
            "http://cart/foo?a=b",
        ),
        ("a scheme brings its default port", https(), "cart:8080", 8080, "https://cart/foo?a=b"),
        (
            "unless there is a port",
            Redirect { port: Some(8443), ..https() },
            "cart",
            80,
            "https://cart:8443/foo?a=b",
        ),
        (
            "a port of the other scheme is named",
            Redirect { port: Some(80), ..https() },
            "cart",
            80,
            "https://cart:80/foo?a=b",
        ),
        ("an IPv6 address", nothing(), "[fd00::1]:8080", 8080, "http://[fd00::1]:8080/foo?a=b"),
        ("no host at all", nothing(), "", 80, "/foo?a=b"),
        (
            "a path",
            Redirect { path: Some(PathChange::ReplacePrefix("/bar".into())), ..nothing() },
            "cart",
            80,
            "http://cart/bar?a=b",
        ),
    ] {
        let asked = Asked::get(authority, "/foo?a=b");
        assert_eq!(redirect.location(&prefix("/foo").path, &asked.head(), "http", port), wanted, "{what}");
    }
}

fn backends(weights: &[u32]) -> Vec<Backend> {
    let backend = |(at, weight): (usize, &u32)| Backend {
        cluster: Name::Cluster(ServicePort::new("shop", at.to_string(), 80)),
        weight: *weight,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    };
    weights.iter().enumerate().map(backend).collect()
}

#[test]
fn a_draw_falls_on_a_backend_by_weight() {
    let at = |weights: &[u32], draw| share(weights.iter().copied(), draw);
    let second = (90_u64 << 32).div_ceil(100) as u32;
    for (what, weights, draw, wanted) in [
        ("no backend", &[][..], 0, None),
        ("all weights 0", &[0, 0], u32::MAX, None),
        ("the only one", &[1], u32::MAX, Some(0)),
        ("weight 0 is skipped at the start", &[0, 1], 0, Some(1)),
        ("weight 0 is skipped at the end", &[1, 0], u32::MAX, Some(0)),
        ("just in the first", &[90, 10], second - 1, Some(0)),
        ("just in the second", &[90, 10], second, Some(1)),
        ("the largest weights", &[u32::MAX; 5], u32::MAX, Some(4)),
    ] {
        assert_eq!(at(weights, draw), wanted, "{what}");
        let backends = backends(weights);
        assert_eq!(split(&backends, draw), wanted.map(|at| &backends[at]), "{what}");
    }
}

proptest! {
    #[test]
    fn shares_are_as_the_weights(weights in vec(0..1000_u32, 0..8)) {
        const DRAWS: u32 = 2_000;
        let total: u32 = weights.iter().sum();
        let mut seen = vec![0_u32; weights.len()];
        for draw in 0..DRAWS {
            match share(weights.iter().copied(), draw * (u32::MAX / DRAWS)) {
                Some(at) => seen[at] += 1,
                None => prop_assert_eq!(total, 0),
            }
        }
        for (weight, seen) in weights.iter().zip(seen) {
            let wanted = f64::from(*weight) / f64::from(total.max(1)) * f64::from(DRAWS);
            prop_assert!((f64::from(seen) - wanted).abs() <= 2.0, "{seen} of {wanted}");
        }
    }

    #[test]
    fn weight_0_is_never_drawn(weights in vec(prop_oneof![Just(0), any::<u32>()], 0..8), draw: u32) {
        match share(weights.iter().copied(), draw) {
            Some(at) => prop_assert_ne!(weights[at], 0),
            None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
        }
    }
}
