//! `failovers`: each take-over of a Singleton as a line of times, and a bar.

use clap::Args;
use cluster_schemas::api::{Failovers, List};
use cluster_schemas::takeover::TakeOver;

use crate::args::{Format, GetArgs};
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::get;
use crate::io::Io;
use crate::output::{document, printable};
use crate::resource::Kind;
use crate::select::format::{Output, OutputParser};

/// Characters of a bar.
const BAR_CHARS: i64 = 60;
/// What the letters of the bars mean.
const LEGEND: &str = "\
= the former holder may still have served   . nobody   v lease granted, until the VIP is seen   u until the unit runs   h until it is healthy
~ an estimate: from when the voters said that the slot is free, and the length of the lease";

/// `failovers`.
#[derive(Debug, Args)]
pub(crate) struct FailoversArgs {
    /// Name of the App; all Singletons when absent
    pub(crate) app: Option<String>,

    /// How to print
    #[arg(short = 'o', long, value_parser = OutputParser, default_value = "table")]
    pub(crate) output: Output,
}

/// What `get failovers [APP]` asks for, if it asks for that.
pub(crate) fn asked(args: &GetArgs) -> Option<FailoversArgs> {
    let app = match args.resources.as_slice() {
        [word] if matches!(word.as_str(), "failovers" | "failover") => None,
        [word, app] if matches!(word.as_str(), "failovers" | "failover") => Some(app.clone()),
        _ => return None,
    };
    Some(FailoversArgs { app, output: args.output.clone() })
}

/// Prints them, the latest first.
pub(crate) fn run(args: &FailoversArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let all = match &args.app {
        None => client.get::<List<Failovers>>("/v1/failovers")?.items,
        Some(app) => match client.get::<Failovers>(&format!("/v1/failovers/{}", encode(app))) {
            Ok(one) => vec![one],
            Err(error) if error.is_not_found() => return Err(get::not_found(client, Kind::App, app)),
            Err(error) => return Err(error.into()),
        },
    };
    let items = serde_json::json!({ "items": all });
    if let Some(text) = args.output.of_paths(&items, false) {
        io.out(&text)?;
        return Ok(Exit::Done);
    }
    match args.output.plain() {
        Format::Json => io.out(&document::json(&items))?,
        Format::Yaml => io.out(&document::yaml(&items))?,
        Format::Name => io.out(&all.iter().filter(|f| !f.takeovers.is_empty()).map(|f| format!("app/{}\n", f.app)).collect::<String>())?,
        Format::Table | Format::Wide => {
            let text = report(&all);
            if text.is_empty() {
                io.remark("No failovers found.");
            } else {
                io.out(&format!("{text}{LEGEND}\n"))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn report(all: &[Failovers]) -> String {
    let mut text = String::new();
    for Failovers { app, takeovers } in all {
        for one in takeovers {
            let from = one.from.as_ref().map(|from| format!("{} (epoch {}) -> ", from.node, from.epoch)).unwrap_or_default();
            let line = format!("app/{app}  {}  {}: {from}{} (epoch {})", one.granted_at, one.cause.as_str(), one.node, one.epoch);
            text.push_str(&format!("{}\n  {}\n  {}\n", printable(&line), times(one), bar(one)));
        }
    }
    text
}

/// The steps that are known, each with its name and whether it is an estimate, in order of their times.
fn steps(one: &TakeOver) -> Vec<(&'static str, i64, bool)> {
    let steps = [
        ("last renewal", one.last_renewal_us, true),
        ("deadline", one.deadline_us, true),
        ("free", one.free_us, false),
        ("grant", Some(0), false),
        ("VIP", one.vip_us, false),
        ("unit", one.unit_us, false),
        ("healthy", one.healthy_us, false),
    ];
    steps.into_iter().filter_map(|(name, at, guess)| Some((name, at?, guess))).collect()
}

/// One line of times, in milliseconds after the first of them.
pub(crate) fn times(one: &TakeOver) -> String {
    let steps = steps(one);
    let zero = steps.iter().map(|(_, at, _)| *at).min().unwrap_or(0);
    let each: Vec<String> = steps
        .iter()
        .map(|(name, at, guess)| {
            let tenths = (at - zero) / 100;
            format!("{name} {}{}.{} ms", if *guess { "~" } else { "" }, tenths / 10, tenths % 10)
        })
        .collect();
    each.join(", ")
}

/// A bar over the same time: who served when.
fn bar(one: &TakeOver) -> String {
    let steps = steps(one);
    let (Some(first), Some(last)) = (steps.iter().map(|s| s.1).min(), steps.iter().map(|s| s.1).max()) else { return String::new() };
    let length = (last - first).max(1);
    let letter = |at: i64| {
        let before = |step: Option<i64>| step.is_some_and(|step| at < step);
        if before(one.deadline_us) {
            '='
        } else if at < 0 {
            '.'
        } else if before(one.vip_us) {
            'v'
        } else if before(one.unit_us) {
            'u'
        } else {
            'h'
        }
    };
    let middle = |cell: i64| first + (2 * cell + 1) * length / (2 * BAR_CHARS);
    format!("|{}|", (0..BAR_CHARS).map(|cell| letter(middle(cell))).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::takeover::{Cause, Former};

    #[test]
    fn a_fail_over_is_a_line_of_times_and_a_bar() {
        let one = TakeOver {
            node: "n3".to_owned(),
            epoch: 7,
            cause: Cause::FailOver,
            from: Some(Former { node: "n1".to_owned(), epoch: 6 }),
            granted_at: "2026-11-23T12:00:00.499Z".to_owned(),
            last_renewal_us: Some(-356_000),
            deadline_us: Some(-106_700),
            free_us: Some(-6_000),
            vip_us: Some(4_200),
            unit_us: Some(120_000),
            healthy_us: Some(244_000),
        };
        let text = report(&[Failovers { app: "db".to_owned(), takeovers: vec![one] }]);
        assert_eq!(
            text,
            "\
app/db  2026-11-23T12:00:00.499Z  fail-over: n1 (epoch 6) -> n3 (epoch 7)
  last renewal ~0.0 ms, deadline ~249.3 ms, free 350.0 ms, grant 356.0 ms, VIP 360.2 ms, unit 476.0 ms, healthy 600.0 ms
  |=========================...........uuuuuuuuuuuuhhhhhhhhhhhh|
"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let one = TakeOver {
            node: "n1".to_owned(),
            epoch: 1,
            granted_at: "2026-11-23T12:00:00Z".to_owned(),
            unit_us: Some(30_000),
            ..TakeOver::default()
        };
        assert_eq!(times(&one), "grant 0.0 ms, unit 30.0 ms");
        assert_eq!(bar(&one), format!("|{}|", "u".repeat(60)));
        assert_eq!(report(&[Failovers { app: "db".to_owned(), takeovers: Vec::new() }]), "");
    }
}
