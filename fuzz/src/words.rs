//! What a kubelet says: the reason on the first line, the image on the second, then the message.

use pullguard::core::cause::{Diagnosis, FailureClass, Permanence, SUMMARY_LIMIT, Words, classify};

/// # Panics
/// The words have no answer, another one each time, or one that is permanent without anybody knowing why.
pub fn holds(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (reason, rest) = text.split_once('\n').unwrap_or(("", &text));
    let (image, message) = rest.split_once('\n').unwrap_or(("", rest));
    let words = Words { reason, message, image: Some(image).filter(|image| !image.is_empty()) };
    let diagnosis = classify(&words);
    assert_eq!(diagnosis, classify(&words), "the same words have another answer");
    match diagnosis {
        Diagnosis::PullFailure(cause) => {
            let unknown = cause.class == FailureClass::Unknown;
            assert!(!unknown || cause.permanence == Permanence::Transient, "{cause:?}");
            assert!(!cause.summary.is_empty() && cause.summary.len() <= SUMMARY_LIMIT, "{cause:?}");
            assert!(!cause.summary.contains(['\n', '\r']), "one line: {cause:?}");
            assert!(!cause.remedy.is_empty(), "{cause:?}");
        }
        Diagnosis::CauseElsewhere { .. } | Diagnosis::NotAPullFailure => {}
    }
}
