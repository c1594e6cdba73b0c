//! The schema of image patterns: what `ImagePattern::parse` refuses, the API server refuses at `kubectl apply`.
//!
//! Enters: nothing. Leaves: schemas with CEL rules, one set for all fields that hold patterns. A rule stands at the single
//! pattern, so that the answer names its place: `spec.allowedImages[3]`.
//!
//! **Both must say the same of every text**, so each rule is one regular expression, which tests compare with the parser
//! here, and on a real API server too. The last rule is the grammar of `core::image::grammar`, with a `*` for any text;
//! those before it say the same of single mistakes, in words that help.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// As long as a name of 255, a tag of 128 and a digest of 128 digits.
const LONGEST: usize = 512;
const MOST: usize = 128;

/// Names between dots, in any case.
const DOMAIN: &str = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]+)?";
/// Without a colon and a capital letter it would be no host, but a path segment that is none.
const IPV6: &str = r"\[[0-9a-fA-F:]*[:A-F][0-9a-fA-F:]*\](:[0-9]+)?|\[[0-9a-f]+\]:[0-9]+";
/// No domain name, such as `my_registry.local`, and asked all the same.
const ODD_HOST: &str = "[a-z0-9]+(([.]|__?|-+)[a-z0-9]+)*";
/// A first segment that is a host and does not count to the length of the name.
const COUNTED_APART: &str = "localhost|[A-Za-z0-9.-]*[.A-Z][A-Za-z0-9.-]*(:[0-9]+)?|[A-Za-z0-9-]+:[0-9]+";
/// Letters and digits, and stars that do not touch.
const RUN: &str = "([*]|[*]?[a-z0-9]+([*][a-z0-9]+)*[*]?)";
/// At most 128 characters, stars not counted.
const TAG: &str = "([*]([A-Za-z0-9_.-][*]?){0,128}|[A-Za-z0-9_][*]?([A-Za-z0-9_.-][*]?){0,127})";
const DIGEST: &str = "(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})";

/// One pattern.
pub(super) fn image_pattern(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": LONGEST,
        "x-kubernetes-validations": rules().iter().map(Rule::to_json).collect::<Vec<_>>(),
    })
}

/// A list of them, which may be empty.
pub(super) fn image_patterns(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": MOST, "items": image_pattern(generator)})
}

/// A list that, if it is there, is not empty.
pub(super) fn allowlist(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "nullable": true, "minItems": 1, "maxItems": MOST, "items": image_pattern(generator),
    })
}

/// What a pattern is compared with.
#[derive(Clone, Copy)]
enum Against {
    Text,
    /// A star counts for nothing in a length.
    TextWithoutStars,
}

struct Rule {
    against: Against,
    expression: String,
    /// Whether it must match, or must not.
    must: bool,
    message: &'static str,
}

impl Rule {
    fn to_json(&self) -> Value {
        let not = if self.must { "" } else { "!" };
        let text = match self.against {
            Against::Text => "self",
            Against::TextWithoutStars => "self.replace('*', '')",
        };
        json!({"rule": format!("{not}{text}.matches(r'{}')", self.expression), "message": self.message})
    }
}

fn rules() -> Vec<Rule> {
    use Against::{Text, TextWithoutStars};
    let segment = format!("({RUN}(([.]|__?|-+){RUN})*|[*][*])");
    let rule = |against, must, expression: String, message| Rule { against, expression, must, message };
    vec![
        rule(
            Text,
            true,
            r"^[A-Za-z0-9.*_:/@\[\]-]+$".to_owned(),
            "an image pattern holds letters, digits and . _ - / : @, and * as its only wildcard; no blanks, no scheme such as https://",
        ),
        rule(
            Text,
            false,
            "^([^/]*[*][^/]*[.:A-Z]|[^/]*[.:A-Z][^/]*[*])[^/]*/".to_owned(),
            "an image pattern has no * in its registry host: name the host (registry.local/**), or use ** alone for every image",
        ),
        rule(
            Text,
            false,
            "//|^/|[/:@]$".to_owned(),
            "an image pattern is host/path:tag or host/path@digest: no empty path segment, tag or digest, and no scheme",
        ),
        rule(
            Text,
            false,
            "[^/][*][*]|[*][*][^/:@]".to_owned(),
            "** stands for whole path segments: write team/** or **/app, and * within a segment or a tag",
        ),
        rule(
            Text,
            false,
            "^[*][*][:@]".to_owned(),
            "** alone is every image and takes no tag or digest: put a registry host before it, such as docker.io/**:1.2",
        ),
        rule(
            Text,
            true,
            format!("^[^@]*(@{DIGEST})?$"),
            "a digest in an image pattern is exact: @sha256: and 64 lower-case hexadecimal digits",
        ),
        rule(
            Text,
            false,
            format!("^({DIGEST}|sha256:[a-f0-9]{{1,63}}|[a-f0-9]{{64}})$"),
            "an image id matches no pattern but **: write the repository, or repository@sha256: and the digits",
        ),
        rule(
            TextWithoutStars,
            true,
            format!("^(({COUNTED_APART}|{IPV6})/)?[^:@]{{0,255}}([:@][^/]*)?$"),
            "the repository in an image pattern has at most 255 characters",
        ),
        rule(
            TextWithoutStars,
            false,
            "^((index[.])?docker[.]io/)?[^/:@]{248,}([:@][^/]*)?$".to_owned(),
            "the repository in an image pattern has at most 255 characters, and library/ is part of it",
        ),
        rule(
            Text,
            true,
            format!("^(({DOMAIN}|{IPV6}|{ODD_HOST})/)?{segment}(/{segment})*(:{TAG})?(@{DIGEST})?$"),
            "an image pattern is [host[:port]/]path[:tag][@digest]: the path in lower-case letters and digits with single . or _, __ or dashes between them, the tag of at most 128 letters, digits, _ . and -, and * for any of these",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use regex::Regex;

    use super::*;
    use crate::core::image::ImagePattern;

    fn compiled() -> Vec<(Rule, Regex)> {
        let compile = |rule: Rule| {
            let expression = Regex::new(&rule.expression).expect("an expression");
            (rule, expression)
        };
        rules().into_iter().map(compile).collect()
    }

    /// As the API server evaluates the rules.
    fn accepted(rules: &[(Rule, Regex)], text: &str) -> bool {
        rules.iter().all(|(rule, expression)| {
            let text = match rule.against {
                Against::Text => text.to_owned(),
                Against::TextWithoutStars => text.replace('*', ""),
            };
            expression.is_match(&text) == rule.must
        })
    }

    #[test]
    fn what_was_accepted_at_apply_and_could_not_be_compiled_is_refused() {
        let (rules, long) = (compiled(), "a".repeat(256));
        let digest = format!("sha256:{}", "0".repeat(64));
        let bad = [
            "Optio-*",
            "docker.io/MyOrg/app",
            "registry.local/Agents/**",
            "nginx:1:2",
            "-foo",
            "foo-",
            "foo..bar",
            "nginx:-x",
            "**:1",
            "reg:abc/x",
            "sha256:abcdef",
            "[abc]/x",
            "nginx:1**",
            "a___b",
            &format!("**@{digest}"),
            &digest,
            &"0".repeat(64),
            &long,
            &long[..248],
            &format!("docker.io/{}", &long[..248]),
            &format!("registry.local/{long}"),
            &format!("my_registry.local/{}", &long[..240]),
            &format!("nginx:{}", &long[..129]),
        ];
        for text in bad {
            assert!(ImagePattern::parse(text).is_err(), "the parser takes {text}");
            assert!(!accepted(&rules, text), "the schema takes {text}");
        }
    }

    #[test]
    fn what_can_be_compiled_is_accepted_at_apply() {
        let (rules, long) = (compiled(), "a".repeat(255));
        let digest = format!("sha256:{}", "0".repeat(64));
        let good = [
            "**",
            "*",
            "optio-*",
            "nginx:1.*",
            "nginx:*",
            "nginx:*-alpine",
            "*/app",
            "**/app",
            "docker.io/**:latest",
            "registry.local/**:v*",
            "registry.local/a/**/b/**/c-*",
            "[::1]:5000/x/**",
            "[A]/x",
            "[abc]:1/x",
            "localhost/x",
            "MyOrg/x",
            "my_registry.local/x",
            "registry.local",
            "registry.local:5000",
            "sha384:abc",
            "a__b/c--d.e",
            "10.0.0.1:5000/x",
            &format!("registry.local/**@{digest}"),
            &format!("nginx:1@{digest}"),
            &format!("sha256:{}", "0".repeat(65)),
            &long[..247],
            &format!("docker.io/{}", &long[..247]),
            &format!("registry.local:5000/{long}"),
            &format!("{}/*/{}*", &long[..100], &long[..153]),
            &format!("nginx:{}*", &long[..128]),
        ];
        for text in good {
            ImagePattern::parse(text).expect(text);
            assert!(accepted(&rules, text), "the schema refuses {text}");
        }
    }

    /// Pieces of patterns and what breaks them, in any order.
    fn a_text() -> impl Strategy<Value = String> {
        let pieces = [
            "a",
            "b1",
            "A",
            "*",
            "**",
            ".",
            "-",
            "_",
            "__",
            "/",
            "/",
            ":",
            "@",
            "localhost",
            "registry.local",
            "docker.io",
            "index.docker.io",
            "[::1]",
            "[",
            "]",
            "5000",
            "library",
            "sha256",
            "sha384",
            "+",
            " ",
            "é",
            "@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
        ];
        prop::collection::vec(select(pieces.to_vec()), 1..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn schema_and_parser_say_the_same_of_every_text(text in a_text()) {
            static RULES: std::sync::OnceLock<Vec<(Rule, Regex)>> = std::sync::OnceLock::new();
            let parsed = ImagePattern::parse(&text);
            prop_assert_eq!(accepted(RULES.get_or_init(compiled), &text), parsed.is_ok(), "{} {:?}", text, parsed);
        }
    }
}
