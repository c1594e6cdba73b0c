//! References: the table of the Go implementation, the parts, the errors.

use super::super::{ImageName, ImageReference, ReferenceError};
use super::{name, reference};

const TABLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/references.tsv"));
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What the runtime looks up, or the id, or `!error`: the second column of the table.
fn outcome(text: &str) -> String {
    match ImageName::parse(text) {
        Ok(ImageName::Reference(reference)) => reference.lookup().to_owned(),
        Ok(ImageName::Id(id)) => id,
        Err(_) => "!error".to_owned(),
    }
}

#[test]
fn every_text_is_read_as_the_kubelet_and_containerd_read_it() {
    let rows: Vec<_> =
        TABLE.lines().filter(|line| !line.starts_with("# ")).filter_map(|line| line.split_once('\t')).collect();
    assert!(rows.len() > 200, "the table is not read");
    for (input, expected) in rows {
        assert_eq!(outcome(input), expected, "{input:?}");
    }
}

#[test]
fn line_breaks_and_tabs_are_refused_too() {
    for text in ["nginx\n", "\nnginx", "nginx\t", "ng\rinx", "nginx\0"] {
        assert_eq!(ImageName::parse(text), Err(ReferenceError::Blank), "{text:?}");
    }
}

#[test]
fn a_reference_gives_its_parts() {
    let plain = reference("nginx");
    assert_eq!((plain.registry(), plain.repository()), ("docker.io", "library/nginx"));
    assert_eq!((plain.tag(), plain.digest()), (Some("latest"), None));
    assert_eq!(plain.name(), "docker.io/library/nginx");
    assert_eq!(plain.lookup(), "docker.io/library/nginx:latest");

    let full = reference(&format!("registry.local:5000/team/app:V1@{DIGEST}"));
    assert_eq!((full.registry(), full.repository()), ("registry.local:5000", "team/app"));
    assert_eq!((full.tag(), full.digest()), (Some("V1"), Some(DIGEST)));
    assert_eq!(full.name(), "registry.local:5000/team/app");

    let digest = reference(&format!("team/app@{DIGEST}"));
    assert_eq!((digest.tag(), digest.digest()), (None, Some(DIGEST)));
    assert_eq!(digest.lookup(), digest.as_str());
}

#[test]
fn with_a_tag_and_a_digest_the_digest_is_looked_up_and_the_tag_is_kept() {
    let both = reference(&format!("nginx:1@{DIGEST}"));
    assert_eq!(both.lookup(), format!("docker.io/library/nginx@{DIGEST}"));
    assert_eq!(both.to_string(), format!("docker.io/library/nginx:1@{DIGEST}"));
    assert_ne!(both, reference(&format!("nginx@{DIGEST}")));
}

#[test]
fn the_written_host_is_remembered_but_does_not_distinguish() {
    for text in ["docker.io/library/nginx:latest", "index.docker.io/nginx", "docker.io/nginx"] {
        assert!(reference(text).has_explicit_host(), "{text}");
        assert_eq!(reference(text), reference("nginx"), "{text}");
    }
    assert!(!reference("nginx").has_explicit_host());
    assert!(!reference("myorg/app").has_explicit_host());
}

#[test]
fn a_short_path_is_what_every_runtime_resolves_alike() {
    assert_eq!(reference("nginx").short_path(), "nginx:latest");
    assert_eq!(reference("library/nginx").short_path(), "library/nginx:latest");
    assert_eq!(reference("myorg/app:1").short_path(), "myorg/app:1");
    assert_eq!(reference(&format!("nginx:1@{DIGEST}")).short_path(), format!("nginx@{DIGEST}"));
    assert_eq!(reference("registry.local/agents/x:1").short_path(), "agents/x:1");
    assert_eq!(reference("docker.io/nginx").short_path(), "library/nginx:latest");
}

#[test]
fn an_image_id_is_no_reference() {
    assert_eq!(name(DIGEST), ImageName::Id(DIGEST.to_owned()));
    assert_eq!(name(DIGEST).to_string(), DIGEST);
    assert_eq!(name("sha256:0123456789ab"), ImageName::Id("sha256:0123456789ab".to_owned()));
    assert_eq!(ImageReference::parse(DIGEST), Err(ReferenceError::ImageId));
    assert!(name("sha256:latest").reference().is_some());
}

#[test]
fn an_error_names_what_is_wrong_and_how_to_mend_it() {
    let long_tag = format!("nginx:{}", "t".repeat(129));
    let short_digest = format!("nginx@sha256:{}", "0".repeat(63));
    for (text, words) in [
        ("", "empty"),
        (" nginx", "blank"),
        ("nginx\u{200b}", "invisible"),
        ("https://docker.io/nginx", "`https://`"),
        ("docker-pullable://nginx@sha256:0", "`docker-pullable://`"),
        ("registry.local/app:${TAG}", "not filled in"),
        ("{{ .Values.image }}", "not filled in"),
        ("nginx:1.*", "`*`"),
        ("registry.local/App", "write `app`"),
        ("nginx:v1/app", "`nginx:v1` is no registry host"),
        ("registry.local//app", "surplus `/`"),
        ("registry.local/", "surplus `/`"),
        ("a..b", "`a..b` must be lower-case"),
        ("nginx:", "nothing follows the `:`"),
        ("nginx:.a", "tag `.a`"),
        (long_tag.as_str(), "129 characters"),
        ("nginx@latest", "`latest` must be written `sha256:`"),
        ("nginx@md5:00", "`md5` is unknown"),
        (short_digest.as_str(), "has 64 hexadecimal digits, this one has 63"),
    ] {
        let error = ImageName::parse(text).expect_err(text).to_string();
        assert!(error.contains(words), "{text:?}: {error}");
        assert!(!error.starts_with(char::is_uppercase) && !error.ends_with('.'), "{error}");
    }
}

#[test]
fn an_error_is_short_whatever_the_text() {
    for text in
        ["A".repeat(1 << 20), "é".repeat(1 << 20), format!("nginx:{}", "/".repeat(1 << 20)), "a.".repeat(1 << 20) + "/"]
    {
        let error = ImageName::parse(&text).expect_err("refused").to_string();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}
