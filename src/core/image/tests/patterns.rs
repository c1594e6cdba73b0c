//! Patterns: what they match, what they refuse, and what is suggested.

use super::super::{ImagePattern, PatternSet, host_case_suggestion};
use super::{pattern, reference};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn check(text: &str, yes: &[&str], no: &[&str]) {
    let pattern = pattern(text);
    let again = ImagePattern::parse(pattern.as_str()).expect("canonical");
    for (images, expected) in [(yes, true), (no, false)] {
        for image in images {
            assert_eq!(pattern.matches(&reference(image)), expected, "{text} and {image}");
            assert_eq!(again.matches(&reference(image)), expected, "{again} and {image}");
        }
    }
}

#[test]
fn a_pattern_is_made_canonical_like_a_reference() {
    for (text, canonical) in [
        ("optio-*", "docker.io/library/optio-*"),
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.*", "docker.io/library/nginx:1.*"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/opt*", "docker.io/library/opt*"),
        ("registry-1.docker.io/x", "registry-1.docker.io/x"),
        ("myorg/*", "docker.io/myorg/*"),
        ("myorg/**", "docker.io/myorg/**"),
        ("docker.io/**", "docker.io/**"),
        ("docker.io/*", "docker.io/library/*"),
        ("*", "docker.io/library/*"),
        ("*/app", "docker.io/*/app"),
        ("**/app", "docker.io/**/app"),
        ("localhos*/x", "docker.io/localhos*/x"),
        ("localhost/x", "localhost/x"),
        ("MyOrg/x", "MyOrg/x"),
        ("registry.local", "docker.io/library/registry.local"),
        ("[::1]:5000/x/**", "[::1]:5000/x/**"),
        ("**", "**"),
    ] {
        assert_eq!(pattern(text).to_string(), canonical, "{text}");
        assert_eq!(pattern(canonical).to_string(), canonical);
        assert_eq!(pattern(text).text(), text);
    }
}

#[test]
fn a_literal_pattern_is_one_repository_with_any_tag_or_digest() {
    let by_digest = format!("registry.local/agents@{DIGEST}");
    check(
        "registry.local/agents",
        &["registry.local/agents", "registry.local/agents:1", &by_digest],
        &[
            "registry.local/agents/x",
            "registry.local/agents-x",
            "registry.local/team/agents",
            "registry.local.evil.com/agents",
            "registry.local:5000/agents",
            "Registry.local/agents",
            "agents",
            "evil.com/registry.local/agents",
        ],
    );
}

#[test]
fn one_star_stays_within_a_path_segment() {
    check(
        "optio-*",
        &["optio-node", "docker.io/optio-node:2", "library/optio-a.b", "optio-x-y"],
        &["optio", "myorg/optio-node", "optio-node/x", "localhost/optio-node", "xoptio-node"],
    );
    check("registry.local/*/app", &["registry.local/a/app"], &["registry.local/app", "registry.local/a/b/app"]);
    check(
        "registry.local/a*b*c",
        &["registry.local/abc", "registry.local/axbbxc"],
        &["registry.local/ab", "registry.local/acb"],
    );
    check("registry.local/aba*aba", &["registry.local/abaaba"], &["registry.local/aba", "registry.local/ababa"]);
}

#[test]
fn two_stars_are_any_number_of_segments_also_none() {
    check(
        "registry.local/agents/**",
        &["registry.local/agents", "registry.local/agents/x", "registry.local/agents/x/y:1"],
        &["registry.local/agents-x", "registry.local/agentsx/y", "registry.local/x/agents", "agents/x"],
    );
    check(
        "registry.local/**/app",
        &["registry.local/app", "registry.local/a/app", "registry.local/a/b/app", "registry.local/app/app"],
        &["registry.local/app/x", "registry.local/xapp", "registry.local/a/xapp"],
    );
    check(
        "registry.local/a/**/b/**/c-*",
        &["registry.local/a/b/c-1", "registry.local/a/x/b/y/b/z/c-1", "registry.local/a/b/b/c-1"],
        &["registry.local/a/c-1", "registry.local/a/b/c-1/d", "registry.local/b/c-1"],
    );
    check("registry.local/**", &["registry.local/a", "registry.local/a/b"], &["registry.local:5000/a", "a"]);
    check("docker.io/**", &["nginx", "myorg/app:1"], &["localhost/nginx", "Docker.io/nginx"]);
    check("**/app", &["myorg/app", "myorg/team/app", "library/app"], &["registry.local/app"]);
    let by_digest = format!("ghcr.io/a/b/c@{DIGEST}");
    check("**", &["nginx", "Foo/x:1", &by_digest], &[]);
}

#[test]
fn a_tag_pattern_is_compared_with_the_tag_as_written_or_latest() {
    let by_digest = format!("nginx@{DIGEST}");
    let both = format!("nginx:1.29@{DIGEST}");
    check("nginx:1.*", &["nginx:1.29", "nginx:1.", &both], &["nginx", "nginx:1", "nginx:2.1.0", &by_digest]);
    check("nginx:latest", &["nginx", "nginx:latest"], &["nginx:1", &by_digest]);
    check("nginx:*", &["nginx", "nginx:1", &both], &[&by_digest, "redis:1"]);
    check("nginx:*-alpine", &["nginx:1-alpine"], &["nginx:1-alpine3", "nginx:alpine"]);
    check("registry.local/**:v*", &["registry.local/a/b:v1"], &["registry.local/a/b:1", "registry.local/a"]);
}

#[test]
fn a_digest_is_compared_exactly_and_beside_the_tag() {
    let by_digest = format!("nginx@{DIGEST}");
    let both = format!("nginx:1@{DIGEST}");
    let other = format!("nginx:1@{}", DIGEST.replace("sha256:0", "sha256:1"));
    check(&by_digest, &[&by_digest, &both], &["nginx", "nginx:1", &other]);
    check(&both, &[&both], &[&by_digest, "nginx:1", &other]);
    check(&format!("registry.local/**@{DIGEST}"), &[&format!("registry.local/a@{DIGEST}")], &["registry.local/a"]);
}

#[test]
fn what_is_no_pattern_is_refused_with_the_pattern_and_the_fix() {
    for (text, words) in [
        ("", "empty"),
        ("nginx ", "blank"),
        ("*.example.com/app", "host `*.example.com` holds a `*`"),
        ("*:5000/x", "host `*:5000` holds a `*`"),
        ("Foo*/x", "host `Foo*` holds a `*`"),
        ("**.io/x", "host `**.io` holds a `*`"),
        ("registry.local/[ab]", "`[` is no glob"),
        ("nginx:[0-9]", "tag `[0-9]`"),
        ("registry.local/a?", "`?` is no glob"),
        ("registry.local/{a,b}", "`{` is no glob"),
        ("!registry.local/a", "`!` is no glob"),
        ("registry.local/a**", "`**` must be a whole path segment, but stands in `a**`"),
        ("***", "must be a whole path segment"),
        ("registry.local/***", "must be a whole path segment"),
        ("**:v1", "docker.io/**:v1"),
        ("**@sha256:0", "takes no tag or digest"),
        ("nginx:**", "write `*` in place of `**`"),
        ("nginx:1**", "write `*` in place of `**`"),
        ("nginx@sha256:*", "a digest is compared exactly"),
        ("nginx@sha256:00", "has 64 hexadecimal digits"),
        (DIGEST, "image id matches no pattern but `**`"),
        ("https://registry.local/**", "`https://`"),
        ("registry.local/", "surplus `/`"),
        ("registry.local/**/", "surplus `/`"),
        ("registry.local/Agents/*", "write `agents/*`"),
        ("registry.local/-*", "`-*` must be lower-case"),
        ("nginx:.*", "tag `.*`"),
        ("nginx:", "nothing follows the `:`"),
        ("${REGISTRY}/**", "not filled in"),
    ] {
        let error = ImagePattern::parse(text).expect_err(text).to_string();
        assert!(error.contains(&format!("`{text}`")) && error.contains(words), "{error}");
    }
}

#[test]
fn stars_do_not_count_for_the_length_but_letters_do() {
    assert!(ImagePattern::parse(&format!("registry.local/{}*", "p".repeat(255))).is_ok());
    assert!(ImagePattern::parse(&format!("registry.local/{}*", "p".repeat(256))).is_err());
    assert!(ImagePattern::parse(&format!("nginx:{}*", "t".repeat(128))).is_ok());
    assert!(ImagePattern::parse(&format!("nginx:{}*", "t".repeat(129))).is_err());
}

#[test]
fn a_set_tells_the_first_pattern_that_matches() {
    let set: PatternSet =
        ["registry.local/*", "nginx:1", "nginx", "**", "registry.local/a"].into_iter().map(pattern).collect();
    assert_eq!(set.first_match(&reference("nginx:1")), Some(1));
    assert_eq!(set.first_match(&reference("nginx:2")), Some(2));
    assert_eq!(set.first_match(&reference("registry.local/a")), Some(0));
    assert_eq!(set.first_match(&reference("quay.io/a")), Some(3));
    assert!(set.matches_any_image());
    assert_eq!(PatternSet::default().first_match(&reference("nginx")), None);
    assert!(!PatternSet::default().matches(&reference("nginx")));
}

#[test]
fn another_case_of_the_host_is_suggested_only_where_it_would_help() {
    let patterns: Vec<_> = ["registry.local/agents/**", "myorg/*", "nginx", "Corp/x", "**"].map(pattern).into();
    let suggest = |image: &str| host_case_suggestion(&reference(image), &patterns).map(|meant| meant.to_string());
    assert_eq!(suggest("Registry.Local/agents/x:1"), Some("registry.local/agents/x:1".to_owned()));
    assert_eq!(suggest("MyOrg/app"), Some("docker.io/myorg/app:latest".to_owned()));
    assert_eq!(suggest("Docker.io/nginx"), Some("docker.io/library/nginx:latest".to_owned()));
    assert_eq!(suggest("CORP/x"), Some("Corp/x:latest".to_owned()));
    assert_eq!(suggest("Registry.Local/other"), None);
    assert_eq!(suggest("registry.local/agents/x"), None);
    assert_eq!(suggest("quay.io/agents/x"), None);
}
