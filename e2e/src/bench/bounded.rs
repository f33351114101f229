//! What a node that stood still does for a moment after its thaw, before its guard ran: bounded, not excluded (protocols B2).

use std::io::Write;

use serde_json::json;

use super::line;
use super::stage;
use crate::drill::{Drill, Kind};
use crate::tour::{Expected, Failure};

pub(super) const NAMES: [&str; 1] = ["resume_fence_ms"];

/// The drills' Apps name five nodes.
const NODES: u8 = 5;
/// How often the active node is paused.
const PAUSES: usize = 5;

pub(super) fn measure(name: &str, out: &mut impl Write) -> Result<(), Failure> {
    let lab = stage::lab(name, NODES)?;
    let mut drill = Drill::start(&lab).expected("the drill's Apps are Ready")?;
    let (mut units, mut address) = (Vec::new(), 0_f64);
    for _ in 0..PAUSES {
        let played = drill.play(Kind::Paused).expected("the active node is paused and resumed")?;
        units.push(line::ms(played.bounded.unit));
        address = address.max(line::ms(played.bounded.vip));
    }
    let parameters = json!({ "paused_s": 5, "what": "unit executes on two nodes", "address_on_two_max_ms": address.round() });
    line::median(out, NAMES[0], "ms", &units, &parameters)
}
