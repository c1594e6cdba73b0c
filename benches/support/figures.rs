//! Figures: what was measured, what it is to be, and whether it is.
//!
//! Enters: rows. Leaves: a table, and with `BENCH_STRICT=1` an exit status that says whether a target was missed. Without
//! it a busy machine fails nobody's build.

use std::process::ExitCode;

#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<[String; 4]>,
    missed: usize,
}

impl Figures {
    /// A figure that has a target.
    pub fn target(&mut self, what: impl Into<String>, figure: impl Into<String>, target: &str, is_met: bool) {
        let met = if is_met { "met" } else { "MISSED" };
        self.missed += usize::from(!is_met);
        self.rows.push([what.into(), figure.into(), target.to_owned(), met.to_owned()]);
    }

    /// One that is told beside it.
    pub fn note(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.rows.push([what.into(), figure.into(), String::new(), String::new()]);
    }

    pub fn finish(self, title: &str) -> ExitCode {
        let heads = [title, "figure", "target", ""].map(str::to_owned);
        let rows: Vec<&[String; 4]> = std::iter::once(&heads).chain(&self.rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        println!();
        for [what, figure, target, met] in rows {
            let line = format!("{what:<0$}  {figure:>1$}  {target:<2$}  {met}", widths[0], widths[1], widths[2]);
            println!("{}", line.trim_end());
        }
        let strict = std::env::var("BENCH_STRICT").is_ok_and(|strict| strict == "1");
        match self.missed {
            0 => ExitCode::SUCCESS,
            missed => {
                println!("{missed} of the targets missed");
                if strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
        }
    }
}

/// Durations in order, to take percentiles of.
#[derive(Clone, Debug)]
pub struct Percentiles(Vec<std::time::Duration>);

impl Percentiles {
    pub fn new(mut times: Vec<std::time::Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn at(&self, per_mille: usize) -> std::time::Duration {
        let index = (self.0.len() * per_mille / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The middle one. Of an even number the lower, which flatters nobody where more is better.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}
