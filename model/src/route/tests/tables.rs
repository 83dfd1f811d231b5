use super::*;

fn table(rules: Vec<(Vec<HostPattern>, RouteRule)>) -> RouteTable {
    RouteTable::new(Origin::default(), rules)
}

#[test]
fn hosts_are_read_from_authorities() {
    for (authority, wanted) in [
        ("cart", "cart"),
        ("Cart.Shop:8080", "cart.shop"),
        ("cart.shop.svc.cluster.local.", "cart.shop.svc.cluster.local"),
        ("cart.:80", "cart"),
        ("[FD00::1]", "[fd00::1]"),
        ("[fd00::1]:80", "[fd00::1]"),
        ("", ""),
    ] {
        assert_eq!(host_of(authority), wanted, "{authority}");
    }
}

#[test]
fn one_match_says_what_speaks_against_it() {
    let asked = Asked::get("cart", "/items/7?a=1&b=&a=2&%20=c&flag")
        .header("x-a", "1")
        .header("x-b", "1")
        .header("x-b", "2");
    let posts = RouteMatch { method: Some(Method::POST), ..RouteMatch::default() };
    let with_header = |wanted: HeaderMatch| RouteMatch { headers: vec![wanted], ..RouteMatch::default() };
    let with_query = |wanted: QueryMatch| RouteMatch { query: vec![wanted], ..RouteMatch::default() };
    for (what, matches, wanted) in [
        ("everything", RouteMatch::default(), true),
        ("this very path", exact("/items/7"), true),
        ("a path is not matched by its beginning", exact("/items"), false),
        ("paths are case-sensitive", exact("/Items/7"), false),
        ("a prefix of elements", prefix("/items"), true),
        ("a prefix with a slash", prefix("/items/"), true),
        ("a prefix that is the path", prefix("/items/7"), true),
        ("a prefix that ends within an element", prefix("/item"), false),
        ("a prefix longer than the path", prefix("/items/7/8"), false),
        ("a pattern for the whole path", regex("/items/[0-9]+"), true),
        ("a pattern for a part of the path", regex("/items"), false),
        ("alternatives are anchored both", regex("/x|/items"), false),
        ("another method", posts, false),
        ("a header", with_header(header("x-a", "1")), true),
        ("a header with another value", with_header(header("x-a", "2")), false),
        ("a header that is missing", with_header(header("x-c", "")), false),
        ("a header in two lines is a list", with_header(header("x-b", "1,2")), true),
        ("the host, which stands in no header", with_header(header("host", "cart")), true),
        ("another host", with_header(header("host", "web")), false),
        ("a query parameter", with_query(query("a", "1")), true),
        ("the first of a name counts", with_query(query("a", "2")), false),
        ("a parameter without value", with_query(query("b", "")), true),
        ("a parameter that is only a name", with_query(query("flag", "")), true),
        ("a parameter as it stands", with_query(query("%20", "c")), true),
        ("names of parameters are case-sensitive", with_query(query("A", "1")), false),
    ] {
        assert_eq!(matches.mismatch(&asked.head()).is_none(), wanted, "{what}: {matches}");
    }
}

#[test]
fn the_root_matches_paths_that_are_none() {
    for target in ["", "*", "/", "//"] {
        assert_eq!(prefix("/").mismatch(&Asked::get("cart", target).head()), None, "{target}");
    }
}

#[test]
fn a_pattern_that_is_only_valid_in_parentheses_is_refused() {
    assert!(Pattern::new("a)(b").is_err());
    assert!(Pattern::new("(").is_err());
    assert!(Pattern::new("(?:a{1000}){1000}").is_err());
    assert_eq!(Pattern::new("a|b").unwrap().text(), "a|b");
}

#[test]
fn rules_take_precedence_as_the_gateway_api_says() {
    let method = |matches: RouteMatch| RouteMatch { method: Some(Method::GET), ..matches };
    let headers = |count: usize, matches: RouteMatch| {
        let names = ["x-a", "x-b", "x-c"];
        RouteMatch { headers: names[..count].iter().map(|name| header(name, "1")).collect(), ..matches }
    };
    let queries = |count: usize, matches: RouteMatch| RouteMatch {
        query: ["a", "b"][..count].iter().map(|name| query(name, "1")).collect(),
        ..matches
    };
    let in_order = [
        exact("/items/7"),
        headers(2, method(prefix("/items/7"))),
        method(prefix("/items/7")),
        headers(3, prefix("/items/7")),
        queries(2, headers(1, prefix("/items/7"))),
        queries(1, headers(1, prefix("/items/7"))),
        queries(2, prefix("/items/7")),
        prefix("/items/7"),
        prefix("/items"),
        regex("/items/.*"),
        regex("/.*"),
        headers(3, method(prefix("/"))),
        prefix("/"),
    ];
    let rules = in_order.iter().enumerate().rev();
    let table =
        table(rules.map(|(at, matches)| (Vec::new(), rule(&at.to_string(), matches.clone()))).collect());
    let names: Vec<_> =
        table.hosts()[0].rules.iter().map(|rule| rule.origin.name.parse::<usize>().unwrap()).collect();
    assert_eq!(names, (0..in_order.len()).collect::<Vec<_>>());
}

#[test]
fn among_equals_the_first_given_counts() {
    let table =
        table(vec![(hosts("*"), rule("older", prefix("/a"))), (hosts(""), rule("younger", prefix("/a")))]);
    assert_eq!(carried(&table, &Asked::get("cart", "/a")), Some("older"));
}

#[test]
fn the_most_specific_host_comes_first_and_the_others_behind_it() {
    let table = table(vec![
        (hosts("*"), rule("any exact", exact("/a"))),
        (hosts("*.shop"), rule("wildcard", prefix("/a"))),
        (hosts("*.eu.shop"), rule("longer wildcard", prefix("/b"))),
        (hosts("cart.eu.shop *.shop"), rule("host", prefix("/c"))),
    ]);
    for (what, authority, target, wanted) in [
        ("a host's own rule", "cart.eu.shop", "/c", Some("host")),
        ("behind it the longest wildcard", "cart.eu.shop", "/b", Some("longer wildcard")),
        ("a wildcard before an exact path of any host", "cart.eu.shop:80", "/a", Some("wildcard")),
        ("of another host too", "web.eu.shop", "/a", Some("wildcard")),
        ("the shorter wildcard of the same rule", "web.eu.shop", "/c", Some("host")),
        ("several labels before a wildcard", "a.b.shop", "/a", Some("wildcard")),
        ("not without a label", "shop", "/b", None),
        ("not with an empty label", ".shop", "/c", None),
        ("any host", "elsewhere", "/a", Some("any exact")),
        ("no rule for this path", "elsewhere", "/c", None),
        ("no host at all", "", "/a", Some("any exact")),
    ] {
        assert_eq!(carried(&table, &Asked::get(authority, target)), wanted, "{what}");
    }
}

#[test]
fn hosts_with_the_same_rules_share_a_virtual_host() {
    let table = table(vec![(hosts("a b *.c"), rule("one", prefix("/")))]);
    assert_eq!(table.hosts().iter().map(|host| host.domains.clone()).collect::<Vec<_>>(), [hosts("a b *.c")]);
}

#[test]
fn a_rule_with_a_host_and_a_wildcard_around_it_stands_there_once() {
    let table = table(vec![(hosts("a.c *.c *"), rule("one", prefix("/")))]);
    assert_eq!(table.hosts().iter().map(|host| host.rules.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn prefixes_of_any_depth_are_found_among_many_rules() {
    let deep = |elements: usize| "/a".repeat(elements);
    let rules: Vec<_> =
        (1..=20).map(|elements| (hosts("*"), rule(&elements.to_string(), prefix(&deep(elements))))).collect();
    let table = table(rules);
    for elements in 1..=20 {
        for target in [deep(elements), deep(elements) + "/", deep(elements) + "/b/c"] {
            assert_eq!(
                carried(&table, &Asked::get("cart", &target)),
                Some(elements.to_string().as_str()),
                "{target}"
            );
        }
    }
}

#[test]
fn a_table_without_a_host_for_the_request_has_no_rule() {
    assert_eq!(carried(&table(Vec::new()), &Asked::get("cart", "/")), None);
    assert_eq!(
        carried(&table(vec![(hosts("cart"), rule("one", prefix("/")))]), &Asked::get("web", "/")),
        None
    );
}

#[test]
fn near_misses_and_the_rule_that_matched_are_explained() {
    let posts = RouteMatch { method: Some(Method::POST), ..prefix("/items") };
    let canary = RouteMatch { headers: vec![header("x-canary", "yes")], ..prefix("/items") };
    let table = table(vec![
        (hosts("*"), rule("posts", posts)),
        (hosts("*"), rule("canary", canary)),
        (hosts("*"), rule("carts", prefix("/carts"))),
        (hosts("*"), rule("all", prefix("/"))),
    ]);
    let mut why = Vec::new();
    route(&table, &Asked::get("cart", "/items/7").head(), &mut why);
    let told: Vec<_> = why.iter().map(|reason| (reason.decided.as_str(), reason.because.as_str())).collect();
    assert_eq!(
        told,
        [
            ("not HTTPRoute/shop/posts", "it is for method POST"),
            ("not HTTPRoute/shop/canary", "it is for requests whose header `x-canary` is `yes`"),
            ("HTTPRoute/shop/all", "path begins with `/`"),
        ]
    );
}

#[test]
fn that_nothing_matched_is_explained() {
    let table = table(vec![(hosts("cart"), rule("one", prefix("/a")))]);
    let because = |authority: &str| {
        let mut why = Vec::new();
        route(&table, &Asked::get(authority, "/").head(), &mut why);
        why.into_iter().map(|reason| reason.because).collect::<Vec<_>>()
    };
    assert_eq!(because("cart"), ["no rule for the host `cart` matches"]);
    assert_eq!(because("web"), ["no rule is for the host `web`"]);
}

/// Paths of few elements, so that they meet; some are very deep.
fn paths() -> impl Strategy<Value = String> {
    let element = select(vec!["a", "b", "", "ab"]);
    let depth = prop_oneof![9 => 0..4_usize, 1 => 10..16_usize];
    depth
        .prop_flat_map(move |depth| vec(element.clone(), depth))
        .prop_map(|elements| format!("/{}", elements.join("/")))
}

fn matches() -> impl Strategy<Value = RouteMatch> {
    let patterns = ["/a.*", "/(a|b)/.*", ".*"].map(|text| Pattern::new(text).unwrap()).to_vec();
    let path = prop_oneof![
        3 => paths().prop_map(PathMatch::Exact),
        3 => paths().prop_map(PathMatch::Prefix),
        1 => select(patterns).prop_map(PathMatch::Regex),
    ];
    let method = proptest::option::weighted(0.2, select(vec![Method::GET, Method::POST]));
    let headers = subsequence(vec![header("x-a", "1"), header("x-b", "1")], 0..2);
    (path, method, headers).prop_map(|(path, method, headers)| RouteMatch {
        path,
        method,
        headers,
        query: Vec::new(),
    })
}

const HOSTS: [&str; 7] = ["*", "*.shop", "*.eu.shop", "cart.shop", "cart.eu.shop", "web", "shop"];

/// Rules, each with hosts; enough of them to be indexed in half of the cases.
fn rules() -> impl Strategy<Value = Vec<(Vec<HostPattern>, RouteMatch)>> {
    let hosts = subsequence(HOSTS.to_vec(), 0..3).prop_map(|hosts| hosts.into_iter().map(host).collect());
    vec((hosts, matches()), 0..40)
}

fn asked() -> impl Strategy<Value = Asked> {
    let authority =
        select(vec!["cart.shop", "cart.eu.shop", "web.eu.shop:80", "WEB", "shop", "elsewhere", ""]);
    (authority, paths(), any::<bool>(), any::<bool>()).prop_map(|(authority, path, post, with_header)| {
        let asked = Asked::get(authority, &path).method(if post { Method::POST } else { Method::GET });
        if with_header { asked.header("x-a", "1") } else { asked }
    })
}

fn fits(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact == host,
        HostPattern::Wildcard(suffix) => {
            let labels = host.strip_suffix(suffix.as_str()).and_then(|labels| labels.strip_suffix('.'));
            labels.is_some_and(|labels| !labels.is_empty())
        }
        HostPattern::Any => true,
    }
}

/// What the Gateway API says, without virtual hosts, orders and indexes.
fn best_rule(rules: &[(Vec<HostPattern>, RouteMatch)], asked: &Asked) -> Option<String> {
    let host = host_of(&asked.authority);
    let any = [HostPattern::Any];
    let applying = rules.iter().enumerate().filter_map(|(at, (hosts, matches))| {
        let hosts = if hosts.is_empty() { &any } else { &hosts[..] };
        let specificity = hosts.iter().filter(|it| fits(it, &host)).map(HostPattern::specificity).min()?;
        matches.mismatch(&asked.head()).is_none().then(|| (specificity, precedence(matches), at))
    });
    applying.min().map(|(_, _, at)| at.to_string())
}

proptest! {
    #[test]
    fn a_table_answers_as_the_gateway_api_says(rules in rules(), asked in vec(asked(), 1..20)) {
        let named = rules.iter().enumerate().map(|(at, (hosts, matches))| (hosts.clone(), rule(&at.to_string(), matches.clone())));
        let table = table(named.collect());
        for asked in asked {
            prop_assert_eq!(carried(&table, &asked).map(str::to_owned), best_rule(&rules, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn an_indexed_host_answers_and_explains_as_a_scan(
        rules in vec(matches(), 16..60), asked in vec(asked(), 1..20),
    ) {
        let rules = rules.into_iter().enumerate().map(|(at, matches)| rule(&at.to_string(), matches)).collect();
        let virtual_host = VirtualHost { domains: hosts("*"), rules };
        let table = RouteTable::from_hosts(Origin::default(), vec![virtual_host]);
        for asked in asked {
            let (mut indexed, mut scanned) = (Vec::new(), Vec::new());
            let found = route(&table, &asked.head(), &mut indexed);
            prop_assert_eq!(found, first_match(table.hosts()[0].rules.iter(), &asked.head(), &mut scanned));
            indexed.truncate(scanned.len());
            prop_assert_eq!(indexed, scanned);
        }
    }

    #[test]
    fn no_request_makes_it_panic(rules in vec(matches(), 0..30), authority: String, target: String) {
        let rules = rules.into_iter().map(|matches| (hosts("* *.shop"), rule("one", matches)));
        carried(&table(rules.collect()), &Asked::get(&authority, &target));
    }
}
