use super::*;

fn several(readings: &[&str]) -> Readings<'static> {
    Readings::Several(readings.iter().map(ToString::to_string).collect())
}

/// What an attacker may send to be read as `/admin` by the app and as something else by the policy.
#[test]
fn a_path_is_read_as_servers_may_read_it() {
    for (what, target, expected) in [
        ("a path as all read it", "/admin", Readings::One("/admin")),
        ("a query is no part of it", "/admin?x=/../y#z", Readings::One("/admin")),
        ("an absolute target", "http://shop/admin?x", Readings::One("/admin")),
        ("an absolute target without a path", "http://shop?x", Readings::One("/")),
        ("a path that holds a URL", "/fetch/http://x", several(&["/fetch/http://x", "/fetch/http:/x"])),
        ("OPTIONS *", "*", Readings::One("*")),
        ("a slash at the end counts", "/admin/", Readings::One("/admin/")),
        ("case counts", "/ADMIN", Readings::One("/ADMIN")),
        ("a name that begins with a dot", "/.well-known/x", several(&["/.well-known/x"])),
        ("one step up", "/admin/../x", several(&["/admin/../x", "/x"])),
        ("one step up at the end", "/x/admin/..", several(&["/x/admin/..", "/x/"])),
        ("steps above the root", "/../../admin", several(&["/../../admin", "/admin"])),
        ("a step that leads nowhere", "/./admin/.", several(&["/./admin/.", "/admin/"])),
        ("two slashes", "//admin", several(&["//admin", "/admin"])),
        ("encoded letters", "/%61dm%69n", several(&["/admin"])),
        ("a space", "/a%20b", several(&["/a b"])),
        ("an encoded slash", "/x%2Fadmin", several(&["/x%2Fadmin", "/x/admin"])),
        ("in lower case", "/x%2fadmin", several(&["/x%2Fadmin", "/x/admin"])),
        ("encoded dots", "/x/%2e%2E/admin", several(&["/x/../admin", "/admin"])),
        ("encoded twice", "/%2561dmin", several(&["/%2561dmin", "/%61dmin", "/admin"])),
        ("a parameter", "/admin;v=1/x", several(&["/admin;v=1/x", "/admin/x"])),
        ("an encoded parameter", "/admin%3Bv", several(&["/admin%3Bv", "/admin;v", "/admin"])),
        ("a backslash", "/x\\admin", several(&["/x\\admin", "/x/admin"])),
        ("an encoded backslash", "/x%5cadmin", several(&["/x%5Cadmin", "/x\\admin", "/x/admin"])),
        ("text that is not ASCII", "/caf%C3%A9", several(&["/café"])),
        ("an encoded question mark", "/x%3Fy", several(&["/x%3Fy", "/x?y"])),
    ] {
        assert_eq!(Readings::of(target), expected, "{what}: {target}");
    }
}

#[test]
fn what_no_sensible_client_sends_has_no_reading() {
    for (what, target) in [
        ("a step up through an encoded slash", "/x/..%2Fadmin"),
        ("a step up whose slashes are backslashes", "/x\\..\\admin"),
        ("a step up behind a parameter", "/x/..;/admin"),
        ("a step up over an empty segment", "/admin//../x"),
        ("a step up, encoded twice", "/x/%252e%252e/admin"),
        ("parameters and encoded slashes", "/admin;x%2Fy"),
        ("parameters and backslashes", "/admin;x\\y"),
        ("encoded too often", "/%2525252525252561dmin"),
        ("a slash that is too long (UTF-8)", "/x%c0%afadmin"),
        ("bytes that are no text", "/caf%E9"),
        ("a zero byte", "/admin%00.txt"),
        ("a line feed", "/admin%0a"),
        ("a control character as it is", "/ad\tmin"),
        ("a percent sign that encodes nothing", "/100%"),
        ("a percent sign and half a number", "/x%2"),
        ("a sign in place of a digit", "/x%+1"),
        ("another encoding", "/x%u0061"),
        ("a fragment", "/admin#x"),
        ("no slash at the start", "admin"),
        ("a host and port", "shop:80"),
    ] {
        assert_eq!(Readings::of(target), Readings::None, "{what}: {target}");
    }
}

#[test]
fn a_policy_names_paths_as_all_servers_read_them() {
    for (pattern, can) in [
        ("*", true),
        ("/", true),
        ("/admin", true),
        ("/admin/*", true),
        ("/.well-known/*", true),
        ("/a b", true),
        ("/café", true),
        ("*.json", true),
        ("*/x", true),
        ("admin", false),
        ("/admin//x", false),
        ("/%61dmin", false),
        ("/a/../b", false),
        ("/admin;v=1", false),
        ("/x?y=1", false),
        ("*x;y", false),
        ("/x#y", false),
    ] {
        assert_eq!(can_be_named(&pattern.parse().unwrap()), can, "{pattern}");
    }
}
