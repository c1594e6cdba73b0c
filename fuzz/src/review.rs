//! The body of a review, posted to the webhook's router.

use std::cell::LazyCell;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use json_patch::Patch;
use k8s_openapi::ByteString;
use pullguard::shell::webhook::router;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower_service::Service as _;

use super::ground;

/// What an answer may weigh, whatever was asked.
const LARGEST_ANSWER: usize = 256 << 10;

struct Bench {
    runtime: Runtime,
    webhook: Router,
    /// One that pins, one that lets pull.
    rescuers: [Router; 2],
}

thread_local! {
    static BENCH: LazyCell<Bench> = LazyCell::new(|| Bench {
        runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        webhook: router(ground::webhook()),
        rescuers: ["PinToHolders", "PullIfNotPresent"].map(|rescue| router(ground::rescuing(rescue))),
    });
}

/// # Panics
/// The answer is not one that the API server, or whoever else has posted this, can use.
pub fn holds(body: &[u8]) {
    BENCH.with(|bench| {
        let uid = uid(body);
        let answer = bench.post(&bench.webhook, "/validate", body);
        bench.is_usable(&answer, uid.as_deref());
        assert_eq!(answer, bench.post(&bench.webhook, "/validate", body), "the same question has another answer");
        for rescuer in &bench.rescuers {
            let answer = bench.post(rescuer, "/mutate", body);
            bench.is_usable(&answer, uid.as_deref());
            bench.patches_once(rescuer, &answer, body);
        }
    });
}

/// The uid of a review, as anybody would read it. Fields that come twice are read in two ways by two readers: there we
/// expect nothing.
fn uid(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    if [r#""request""#, r#""uid""#].iter().any(|name| text.matches(name).count() != 1) || text.contains("\\u") {
        return None;
    }
    let review: Value = serde_json::from_str(text).ok()?;
    let uid = review.get("request")?.get("uid")?.as_str()?;
    (1..=256).contains(&uid.len()).then(|| uid.to_owned())
}

type Answered = (StatusCode, String);

impl Bench {
    fn post(&self, router: &Router, path: &str, body: &[u8]) -> Answered {
        let request = Request::post(format!("{path}?timeout=10s")).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        self.runtime.block_on(async {
            let response = router.clone().call(request).await.expect("infallible");
            let status = response.status();
            let body = to_bytes(response.into_body(), LARGEST_ANSWER).await.expect("an answer of bounded size");
            (status, String::from_utf8(body.to_vec()).expect("an answer in UTF-8"))
        })
    }

    fn is_usable(&self, (status, text): &Answered, uid: Option<&str>) {
        if *status == StatusCode::BAD_REQUEST {
            assert_eq!(uid, None, "a review with a uid gets a review: {text}");
            assert!(text.len() > 10 && text.len() < 1_000, "a sentence: {text}");
            return;
        }
        assert_eq!(*status, StatusCode::OK, "{text}");
        let answer: Value = serde_json::from_str(text).expect("JSON");
        let version = answer["apiVersion"].as_str().expect("a version");
        assert!(matches!(version, "admission.k8s.io/v1" | "admission.k8s.io/v1beta1"), "{text}");
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = answer["response"].as_object().expect("a response");
        let answered = response["uid"].as_str().expect("a uid");
        assert!(!answered.is_empty(), "{text}");
        if let Some(uid) = uid {
            assert_eq!(answered, uid, "{text}");
        }
        let allowed = response["allowed"].as_bool().expect("a verdict");
        assert_eq!(allowed, !response.contains_key("status"), "a denial says why: {text}");
        if let Some(status) = response.get("status") {
            assert!(matches!(status["code"].as_u64(), Some(400 | 403)), "{text}");
            assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
            assert!(status["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{text}");
        }
        for warning in response.get("warnings").and_then(Value::as_array).into_iter().flatten() {
            let warning = warning.as_str().expect("text");
            // What the API server passes on: no control characters, at most 256 bytes.
            assert!(warning.len() <= 256 && !warning.chars().any(char::is_control), "{warning:?}");
        }
        assert_eq!(response.contains_key("patch"), response.contains_key("patchType"), "{text}");
    }

    /// A rescue is a patch that fits, is the same when applied twice, and leaves nothing to rescue.
    fn patches_once(&self, rescuer: &Router, (_, text): &Answered, body: &[u8]) {
        let Ok(answer) = serde_json::from_str::<Value>(text) else { return };
        let Some(patch) = answer.pointer("/response/patch") else { return };
        let patch: ByteString = serde_json::from_value(patch.clone()).expect("base64");
        let patch: Patch = serde_json::from_slice(&patch.0).expect("a JSON Patch");
        // Deeper than this reader goes; what is in it is none of the patch's business.
        let Ok(mut review) = serde_json::from_slice::<Value>(body) else { return };
        let object = review.pointer_mut("/request/object").expect("an object that was patched");
        json_patch::patch(object, &patch).expect("a patch that fits");
        let once = object.clone();
        json_patch::patch(object, &patch).expect("a patch that fits twice");
        assert_eq!(*object, once, "the patch has done more the second time");
        let again = self.post(rescuer, "/mutate", review.to_string().as_bytes());
        let again: Value = serde_json::from_str(&again.1).expect("JSON");
        assert_eq!(again.pointer("/response/patch"), None, "the rescued pod is rescued again");
        assert_eq!(again.pointer("/response/allowed"), Some(&json!(true)));
    }
}
