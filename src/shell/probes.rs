//! `/livez`, `/readyz` and `/metrics`, on a plain port.
//!
//! Enters: two values that somebody holds. Leaves: HTTP answers.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// What the probes ask.
pub trait Vitals: Send + Sync + 'static {
    /// Why this replica cannot answer reviews yet; `None`: it can.
    fn not_ready(&self) -> Option<String>;
    /// The metrics, in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

pub fn router(vitals: Arc<dyn Vitals>) -> Router {
    let readiness = Arc::clone(&vitals);
    Router::new()
        .route("/livez", get(async || "ok"))
        .route(
            "/readyz",
            get(async move || match readiness.not_ready() {
                None => (StatusCode::OK, "ok".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(axum::http::header::CONTENT_TYPE, format)], vitals.metrics())
            }),
        )
}
