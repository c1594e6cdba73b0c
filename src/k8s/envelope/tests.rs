use super::super::bounded::MAX_ENTRIES;
use super::*;

fn review(request: &str) -> String {
    format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#)
}

const POD: &str = r#"{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE","namespace":"team","name":"p","userInfo":{"username":"a"},"object":{"spec":{"x":[1,{"y":null}]}},"oldObject":null,"dryRun":true}"#;

fn bad(body: &str) -> BadReview {
    Envelope::parse(body.as_bytes()).expect_err("a bad review")
}

#[test]
fn a_review_is_read_and_its_object_is_left_as_it_is() {
    let body = review(POD);
    let envelope = Envelope::parse(body.as_bytes()).expect("a review");
    assert_eq!((&*envelope.uid, &*envelope.kind, &*envelope.namespace), ("u-1", "Pod", "team"));
    assert_eq!(envelope.operation, Operation::Create);
    assert!(envelope.dry_run && envelope.old_object.is_none() && envelope.subresource.is_empty());
    assert_eq!(envelope.object.map(RawValue::get), Some(r#"{"spec":{"x":[1,{"y":null}]}}"#));
    assert!(matches!(envelope.uid, Cow::Borrowed(_)));
    assert_eq!(envelope.api_version(), "v1");
}

#[test]
fn the_order_of_fields_does_not_matter() {
    let body = r#"{"request":{"object":{},"operation":"UPDATE","kind":{"kind":"Job","group":"batch","version":"v1"},"uid":"u"},
        "extra":[[]],"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#;
    let envelope = Envelope::parse(body.as_bytes()).expect("a review");
    assert_eq!((&*envelope.uid, envelope.api_version().as_str()), ("u", "batch/v1"));
}

#[test]
fn the_uid_is_kept_when_the_rest_cannot_be_read() {
    for rest in [
        r#""object": {"spec": "#,
        r#""operation": 7}}"#,
        r#""operation":"PATCH","kind":{"kind":"Pod"}}}"#,
        r#""kind": "Pod"}}"#,
        r#""kind": null}}"#,
        r#""dryRun": "yes"}}"#,
        r#""object": {}}} trailing"#,
    ] {
        let body =
            format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u-1",{rest}"#);
        assert_eq!(bad(&body).uid.as_deref(), Some("u-1"), "{rest}");
    }
}

#[test]
fn the_uid_is_found_behind_what_is_of_a_wrong_kind() {
    let request = r#""request":{"dryRun":"yes","kind":[[1]],"operation":7,"namespace":{},"uid":"u-1","object":{}}"#;
    for (body, field) in [
        (format!(r#"{{"apiVersion":["v1"],"kind":7,{request}}}"#), "`apiVersion`"),
        (format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":7,{request}}}"#), "`kind`"),
        (format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",{request}}}"#), "`request.dryRun`"),
    ] {
        let found = bad(&body);
        assert_eq!(found.uid.as_deref(), Some("u-1"), "{body}");
        assert!(found.to_string().contains(field), "{found}");
    }
    let found = bad(&review(r#"{"uid":7}"#));
    assert_eq!((found.uid.as_deref(), found.to_string().contains("`request.uid`")), (None, true), "{found}");
}

#[test]
fn what_is_no_review_is_called_by_its_name() {
    for (body, part) in [
        ("", "empty"),
        (" \n", "empty"),
        ("hello", "cannot be read"),
        ("[]", "an AdmissionReview"),
        ("7", "an AdmissionReview"),
        ("{}", "kind ``"),
        (r#"{"kind":"Pod","apiVersion":"v1"}"#, "kind `Pod`"),
        (r#"{"kind":"AdmissionReview"}"#, "version ``"),
        (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#, "no `request`"),
        (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}"#, "no `request`"),
        (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}"#, "no `request.uid`"),
        (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":""}}"#, "no `request.uid`"),
    ] {
        let found = bad(body);
        assert_eq!(found.uid, None);
        assert!(found.to_string().contains(part), "{body}: {found}");
    }
    assert_eq!(Envelope::parse(b"\xff{}").expect_err("bytes").problem, ReviewProblem::Encoding);
}

#[test]
fn another_version_is_refused_in_that_version() {
    let body = review(POD).replace("admission.k8s.io/v1", OLD_VERSION);
    let found = bad(&body);
    assert_eq!((found.uid.as_deref(), found.version), (Some("u-1"), OLD_VERSION));
    assert!(found.to_string().contains("admissionReviewVersions"), "{found}");
}

#[test]
fn depth_costs_nothing_where_nobody_looks() {
    let depth = 1_000_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = review(&format!(
        r#"{{"uid":"u","kind":{{"kind":"Pod"}},"operation":"CREATE","options":{deep},"object":{deep}}}"#
    ));
    assert!(Envelope::parse(body.as_bytes()).is_ok());
    assert_eq!(bad(&deep).uid, None);
    let unclosed = review(&format!(r#"{{"uid":"u","object":{}"#, "{\"a\":".repeat(depth)));
    assert_eq!(bad(&unclosed).uid.as_deref(), Some("u"));
}

#[test]
fn messages_stay_short_whatever_is_sent() {
    let long = "x".repeat(1_000_000);
    for body in [
        format!("\"{long}\""),
        format!(r#"{{"kind":"{long}"}}"#),
        review(&format!(r#"{{"uid":"u","operation":"{long}","kind":{{"kind":"Pod"}}}}"#)),
        review(&format!(r#"{{"uid":"u","dryRun":"{long}"}}"#)),
    ] {
        assert!(bad(&body).to_string().len() < 600);
    }
    assert_eq!(bad(&review(&format!(r#"{{"uid":"{long}"}}"#))).uid, None);
}

#[test]
fn an_object_decoded_on_the_way_asks_what_one_read_apart_asks() {
    let pod = |image: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"m","image":"{image}"}}]}}}}"#
        )
    };
    let (old, new) = (pod("m:1"), pod("m:2"));
    let job = format!(r#"{{"metadata":{{"generateName":"j-"}},"spec":{{"template":{new}}}}}"#);
    let kind = |group: &str, kind: &str| format!(r#""kind":{{"group":"{group}","version":"v1","kind":"{kind}"}}"#);
    let (a_pod, a_job) = (kind("", "Pod"), kind("batch", "Job"));
    for (request, on_the_way) in [
        (format!(r#"{a_pod},"namespace":"team","operation":"CREATE","object":{new},"oldObject":null"#), true),
        (format!(r#"{a_pod},"namespace":"team","operation":"UPDATE","object":{new},"oldObject":{old}"#), true),
        (format!(r#"{a_job},"namespace":"team","operation":"CREATE","object":{job},"oldObject":null"#), true),
        // The order of nobody.
        (format!(r#""operation":"UPDATE","namespace":"team","object":{new},{a_pod},"oldObject":{old}"#), false),
        (format!(r#""operation":"UPDATE","namespace":"team","oldObject":{old},{a_pod},"object":{new}"#), false),
        (format!(r#""oldObject":{old},"object":{new},"namespace":"team","operation":"UPDATE",{a_pod}"#), false),
        // Exempt: neither way.
        (format!(r#"{a_pod},"namespace":"team","operation":"UPDATE","object":{new},"oldObject":{new}"#), true),
        (format!(r#"{a_pod},"namespace":"kube-system","operation":"CREATE","object":{new}"#), true),
        (format!(r#"{a_pod},"namespace":"team","operation":"DELETE","object":null,"oldObject":{old}"#), false),
        (format!(r#"{a_pod},"subResource":"status","namespace":"team","operation":"UPDATE","object":{new}"#), false),
    ] {
        let body = review(&format!(r#"{{"uid":"u",{request}}}"#));
        let apart = Envelope::parse(body.as_bytes()).expect("a review");
        let apart = apart.submitted().inquire("pullguard").expect("an object");
        let (envelope, decoded) = Envelope::parse_decoded(body.as_bytes()).expect("a review");
        assert_eq!(decoded.is_some(), on_the_way, "{request}");
        let inquired = match decoded {
            Some(decoded) => envelope.submitted().inquire_decoded("pullguard", decoded),
            None => envelope.submitted().inquire("pullguard").expect("an object"),
        };
        assert_eq!(format!("{inquired:?}"), format!("{apart:?}"), "{request}");
    }
}

#[test]
fn an_object_that_cannot_be_decoded_is_left_for_the_answer_that_says_so() {
    for object in ["[]", r#"{"spec":{"containers":"none"}}"#, "null", "7"] {
        let request = format!(r#"{{"uid":"u","kind":{{"kind":"Pod"}},"operation":"CREATE","object":{object}}}"#);
        let body = review(&request);
        let (envelope, decoded) = Envelope::parse_decoded(body.as_bytes()).expect("a review");
        assert!(decoded.is_none() && envelope.submitted().inquire("pullguard").is_err(), "{object}");
    }
}

/// As the API server writes it: what the object is comes before the object, which is then decoded on the way.
#[test]
fn an_object_decoded_on_the_way_is_bounded_like_any_other() {
    let ordered = |objects: &str, operation: &str| {
        let kind = r#"{"group":"","version":"v1","kind":"Pod"}"#;
        review(&format!(
            r#"{{"uid":"u-1","kind":{kind},"name":"p","namespace":"team","operation":"{operation}",{objects}}}"#
        ))
    };
    let pod = |count: usize| format!(r#"{{"spec":{{"containers":[{{}}{}]}}}}"#, ",{}".repeat(count - 1));
    let (most, more) = (pod(MAX_ENTRIES), pod(MAX_ENTRIES + 1));
    let taken = ordered(&format!(r#""object":{most},"oldObject":null"#), "CREATE");
    assert!(Envelope::parse_decoded(taken.as_bytes()).expect("a review").1.is_some());
    for body in [
        ordered(&format!(r#""object":{more},"oldObject":null"#), "CREATE"),
        ordered(&format!(r#""object":{most},"oldObject":{more}"#), "UPDATE"),
    ] {
        let (envelope, decoded) = Envelope::parse_decoded(body.as_bytes()).expect("a review");
        assert!(decoded.is_none());
        let told = envelope.submitted().inquire("pullguard").expect_err("too many").to_string();
        assert!(told.contains("more than 10000"), "{told}");
    }
}
