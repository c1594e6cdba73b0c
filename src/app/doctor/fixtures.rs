//! For tests: the installation that `manifests/base` declares, with webhooks that fail open or closed.

use super::files::Declared;
use super::site::Site;
use crate::app::manifests::{Manifests, Object, Place, Validate};

const BASE: [&str; 5] = [
    include_str!("../../../manifests/base/namespace.yaml"),
    include_str!("../../../manifests/base/rbac.yaml"),
    include_str!("../../../manifests/base/service.yaml"),
    include_str!("../../../manifests/base/deployment.yaml"),
    include_str!("../../../manifests/base/webhook.yaml"),
];

pub(super) fn declared() -> Declared {
    let mut manifests = Manifests::new(Validate::Strict);
    let mut declared = Declared::default();
    for text in BASE {
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).expect("YAML");
        for value in documents {
            let text = |field: &str| value[field].as_str().expect("a text").to_owned();
            let (kind, version) = (text("kind"), text("apiVersion"));
            let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
            let place = Place { file: "base".to_owned(), document: 1, items: String::new() };
            declared.add(&mut manifests, &Object { place, group, kind, value }).expect("a typed object");
        }
    }
    declared
}

pub(super) fn site(closed: bool) -> Site {
    let mut site = declared().site("pullguard");
    for hook in &mut site.hooks {
        hook.webhook.failure_policy = Some(if closed { "Fail" } else { "Ignore" }.to_owned());
    }
    site
}
