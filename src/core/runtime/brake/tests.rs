//! The levels of a brake, by what it is told.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fail(brakes: &mut Brakes, image: &str, node: &str, class: FailureClass, now: Moment) {
    brakes.failed(&Failure { host: Some("r"), node: Some(node), image, class: Some(class), lost: false }, now);
}

fn level(brakes: &Brakes) -> Level {
    brakes.level(&Place::Registry("r".to_owned()))
}

#[test]
fn a_single_bad_image_is_no_outage_wherever_it_lands() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for node in 0..50 {
        fail(&mut brakes, "bad", &format!("n{node}"), FailureClass::NotFound, now);
    }
    brakes.update(now);
    assert_eq!(level(&brakes), Level::Suspect);
    assert_eq!(brakes.level(&Place::Node("n1".to_owned())), Level::Normal);
}

#[test]
fn a_registry_that_does_not_answer_is_out_until_it_does() {
    let (mut brakes, start) = (Brakes::default(), Moment::default());
    let mut now = start;
    while now.since(start) < SECOND * 3600 {
        for image in ["a", "b", "c", "d", "e"] {
            fail(&mut brakes, image, "n", FailureClass::Network, now);
        }
        brakes.update(now);
        assert_eq!(level(&brakes), Level::Outage);
        now = now.plus(SECOND * 30);
    }
    for image in ["a", "b", "c", "d", "e"] {
        brakes.pulled("r", Some("n"), image, now);
    }
    let changes = brakes.update(now);
    assert_eq!(level(&brakes), Level::Normal);
    assert!(changes.iter().any(|change| change.before == Level::Outage));
}

#[test]
fn images_that_the_registry_has_answered_for_do_not_hold_the_brake_for_ever() {
    let (mut brakes, start) = (Brakes::default(), Moment::default());
    let mut now = start;
    for step in 0..40 {
        for image in ["a", "b", "c", "d", "e"] {
            fail(&mut brakes, image, "n", FailureClass::NotFound, now);
        }
        brakes.update(now);
        let expected = if now.since(start) < SECOND * 300 { Level::Outage } else { Level::Normal };
        assert_eq!(level(&brakes), expected, "step {step}");
        now = now.plus(SECOND * 30);
    }
}

#[test]
fn others_that_pull_well_make_it_no_outage() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for image in ["a", "b", "c", "d", "e"] {
        fail(&mut brakes, image, "n", FailureClass::NotFound, now);
    }
    for image in ["v", "w", "x", "y", "z"] {
        brakes.pulled("r", Some("m"), image, now);
    }
    brakes.update(now);
    assert_eq!(level(&brakes), Level::Suspect);
}

#[test]
fn never_pull_does_not_go_through_a_registrys_brake() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for image in 0..20 {
        fail(&mut brakes, &format!("i{image}"), "n", FailureClass::Network, now);
    }
    brakes.update(now);
    let class = Some(FailureClass::NeverPull);
    let never = Failure { host: Some("r"), node: Some("n"), image: "x", class, lost: false };
    assert_eq!(brakes.holding(&never), Level::Normal);
    let here = Failure { lost: true, ..never };
    assert_eq!(brakes.holding(&here), Level::Outage, "but through its node's, which had the image");
    let invalid = Failure { class: Some(FailureClass::InvalidName), ..here };
    assert_eq!(brakes.holding(&invalid), Level::Normal);
}

#[test]
fn absent_images_are_no_outage_of_a_node_that_never_had_them_and_lost_ones_are() {
    for (lost, expected) in [(false, Level::Normal), (true, Level::Outage)] {
        let (mut brakes, now) = (Brakes::default(), Moment::default());
        let class = Some(FailureClass::NeverPull);
        for image in ["a", "b", "c", "d", "e"] {
            brakes.failed(&Failure { host: Some("r"), node: Some("n"), image, class, lost }, now);
        }
        brakes.update(now);
        assert_eq!(brakes.level(&Place::Node("n".to_owned())), expected);
        assert_eq!(level(&brakes), Level::Normal, "its registry was not asked");
    }
}

#[test]
fn a_node_whose_disk_is_full_is_no_outage_of_the_registry() {
    for class in [FailureClass::DiskFull, FailureClass::NodeThrottle, FailureClass::InspectFailed] {
        let (mut brakes, now) = (Brakes::default(), Moment::default());
        for image in ["a", "b", "c", "d", "e"] {
            fail(&mut brakes, image, "n", class, now);
        }
        brakes.update(now);
        assert_eq!(level(&brakes), Level::Normal, "{class}");
        assert_eq!(brakes.level(&Place::Node("n".to_owned())), Level::Outage, "{class}");
    }
}

#[test]
fn a_registry_that_says_no_such_image_is_no_outage_of_the_node_that_asked() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for image in ["a", "b", "c", "d", "e"] {
        fail(&mut brakes, image, "n", FailureClass::NotFound, now);
    }
    brakes.update(now);
    assert_eq!(level(&brakes), Level::Outage);
    assert_eq!(brakes.level(&Place::Node("n".to_owned())), Level::Normal);
}

#[test]
fn what_is_over_leaves_nothing() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for image in 0..1_000 {
        fail(&mut brakes, &format!("i{image}"), "n", FailureClass::Network, now);
    }
    brakes.update(now);
    assert_eq!(brakes.sites.values().map(|site| site.images.len()).max(), Some(MOST_NAMES));
    brakes.update(now.plus(SECOND * 601));
    brakes.update(now.plus(SECOND * 602));
    assert!(brakes.sites.is_empty());
}

#[test]
fn what_is_well_never_takes_the_room_of_what_is_not() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for index in 0..10_000 {
        brakes.pulled(&format!("r{index}"), Some(&format!("n{index}")), "fine", now);
    }
    assert_eq!(brakes.sites.len(), MOST_HEALTHY, "registries, and no node");
    for image in ["a", "b", "c", "d", "e"] {
        fail(&mut brakes, image, "n", FailureClass::Network, now);
        brakes.denied("p", image, now);
    }
    brakes.update(now);
    assert_eq!(brakes.out().len(), 3, "registry, node and policy");
    brakes.pulled("r", Some("n"), "a", now);
    brakes.update(now);
    assert_eq!(brakes.level(&Place::Node("n".to_owned())), Level::Normal, "but there successes count");
}

#[test]
fn places_are_bounded_each_by_its_kind() {
    let (mut brakes, now) = (Brakes::default(), Moment::default());
    for index in 0..3_000 {
        let host = format!("r{index}");
        let failure = Failure {
            host: Some(&host),
            node: Some(&host),
            image: "a",
            class: Some(FailureClass::Network),
            lost: false,
        };
        brakes.failed(&failure, now);
        brakes.denied(&host, "a", now);
    }
    assert_eq!(brakes.sites.len(), MOST_REGISTRIES + MOST_NODES + MOST_POLICIES);
}
