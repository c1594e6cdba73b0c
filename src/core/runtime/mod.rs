//! The runtime half, pure: from what is seen of pods, owners and records to the effects that end a hopeless task.
//!
//! Enters: sights (small values that the shell translates from watches and reads), outcomes of effects, and the time.
//! Leaves: plans, that is effects with their own fences, and when to plan again. It must not know a client, a clock or
//! a log; `Ledger` is its only state, and an empty ledger never acts more than a full one.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `sight` | what is seen: pods, Events, owners, records, denials |
//! | `symptoms` | the images that a pod waits for in vain |
//! | `task`, `rules` | which task a pod belongs to, and which settings hold for it |
//! | `moment` | time that no clock can turn back |
//! | `clock` | how long an image of a task has failed, and with what evidence |
//! | `brake`, `brake_sign`, `caps` | when not to act, and how much at most |
//! | `judge` | whether a failure is permanent, and for whom |
//! | `ledger` | the state: takes in sights and outcomes |
//! | `plan`, `planner` | every task that asks for it is looked at; what is bounded |
//! | `findings`, `acts`, `steps`, `collecting`, `records`, `telling` | the next step of a task, as an effect |
//! | `outcomes` | how it went |
//! | `guard` | the last look before an act, on a fresh read |
//! | `recreation` | what admission must know of failed tasks |
//! | `denied` | Jobs whose pods our own webhook refuses |
//! | `explain` | the same judgement in words, for one pod |

mod acts;
pub mod brake;
pub mod brake_sign;
mod braking;
pub mod caps;
mod clock;
mod collecting;
mod denied;
pub mod effect;
mod entry;
pub mod explain;
mod findings;
pub mod guard;
pub mod judge;
pub mod ledger;
pub mod moment;
pub mod nodes;
mod notes;
mod outcomes;
pub mod plan;
mod planner;
mod pods;
mod records;
pub mod recreation;
pub mod rules;
pub mod sight;
mod steps;
pub mod symptoms;
pub mod task;
mod telling;
pub mod waste;

#[cfg(test)]
mod tests;
