//! Image references and patterns, by the first line of the input; a second line is matched against the first.

use pullguard::core::image::{ImageName, ImagePattern, ImageReference, PatternSet};

/// # Panics
/// What is accepted is not canonical, or matches what it does not name.
pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(name) = ImageName::parse(first) {
        name_is_canonical(&name);
    }
    if let Ok(reference) = ImageReference::parse(first) {
        reference_is_its_own_pattern(first, &reference);
        nothing_matches_by_prefix(&reference);
    }
    if let Ok(pattern) = ImagePattern::parse(first) {
        let printed = pattern.to_string();
        let again = ImagePattern::parse(&printed).expect("a printed pattern is a pattern");
        assert_eq!((&again, again.to_string()), (&pattern, printed), "normalising twice is not normalising once");
        if let Ok(image) = ImageReference::parse(second) {
            matches_as_it_should(&pattern, &again, &image);
        }
    }
}

fn name_is_canonical(name: &ImageName) {
    let printed = name.to_string();
    let again = ImageName::parse(&printed).expect("a printed name is a name");
    assert_eq!((&again, again.to_string()), (name, printed), "normalising twice is not normalising once");
}

fn reference_is_its_own_pattern(written: &str, image: &ImageReference) {
    let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = image.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    assert_eq!(image.to_string(), format!("{}/{}{tag}{digest}", image.registry(), image.repository()));
    assert!(image.lookup().ends_with(image.short_path()));
    for text in [written, image.as_str(), image.name(), image.lookup()] {
        let pattern = ImagePattern::parse(text).expect("a reference is a pattern");
        assert!(pattern.matches(image), "{pattern} does not match {image}");
    }
}

fn nothing_matches_by_prefix(image: &ImageReference) {
    let pattern = ImagePattern::parse(image.name()).expect("a name is a pattern");
    let (host, path) = (image.registry(), image.repository());
    for other in [
        format!("{host}.evil/{path}"),
        format!("evil.{host}/{path}"),
        format!("{host}/{path}evil"),
        format!("{host}/{path}/evil"),
        format!("{host}/evil/{path}"),
        format!("evil.io/{host}/{path}"),
    ] {
        // Longer than a name may be, or with a host in the path, which is no path.
        let Ok(other) = ImageReference::parse(&other) else { continue };
        assert!(!pattern.matches(&other), "{pattern} matches {other}");
    }
}

fn matches_as_it_should(pattern: &ImagePattern, again: &ImagePattern, image: &ImageReference) {
    let matches = pattern.matches(image);
    assert_eq!(matches, again.matches(image), "{pattern} and its own text disagree on {image}");
    let set = PatternSet::new([pattern.clone()]);
    assert_eq!(matches, set.matches(image), "{pattern} and a set of it disagree on {image}");
    assert_eq!(matches.then_some(0), set.first_match(image));
    let canonical = ImageReference::parse(image.as_str()).expect("canonical");
    assert_eq!(matches, pattern.matches(&canonical), "{pattern} depends on how {image} was written");
    if let Some(host) = pattern.registry().filter(|_| matches) {
        assert_eq!(host, image.registry(), "{pattern} crosses to another registry");
    }
    if matches && !pattern.as_str().contains('*') {
        let named = pattern.as_str().starts_with(image.name());
        assert!(named, "{pattern} has no glob and matches {image}");
    }
}
