//! The runtime half against a world in memory: an API server with fences, kubelets, a Job controller.

mod arrivals;
mod behaviour;
mod bystanders;
mod denials;
mod explain;
mod faults;
mod laws;
mod nodescoped;
mod outages;
mod owners;
mod recreation;
mod scale;
mod setbacks;
mod trial;
mod tries;
mod world;
