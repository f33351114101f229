//! `explain placement APP`: every node and every rule, and what would have to change.

use cluster_schemas::placement::{NodePlacement, PlacementView};

use crate::args::Format;
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::get::not_found;
use crate::io::Io;
use crate::output::{document, table::Table};
use crate::resource::Kind;
use crate::select::format::Output;

/// Prints it.
pub(crate) fn run(app: &str, output: &Output, no_headers: bool, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let app = app.strip_prefix("app/").unwrap_or(app);
    let view = match client.get::<PlacementView>(&format!("/v1/apps/{}/placement", encode(app))) {
        Err(error) if error.is_not_found() => return Err(not_found(client, Kind::App, app)),
        other => other?,
    };
    let value = serde_json::to_value(&view).unwrap_or_default();
    let of_paths = output.of_paths(&value, no_headers);
    let text = match output.plain() {
        _ if of_paths.is_some() => of_paths.unwrap_or_default(),
        Format::Json => document::json(&value),
        Format::Yaml => document::yaml(&value),
        Format::Name => format!("app/{}\n", view.app),
        Format::Table | Format::Wide => table(&view, no_headers),
    };
    io.out(&text)?;
    Ok(Exit::Done)
}

fn table(view: &PlacementView, no_headers: bool) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "RULE", "RESULT", "NUMBERS"]);
    for node in &view.nodes {
        let role = node.role.map_or("-", |role| role.as_str());
        for (at, check) in node.rules.iter().enumerate() {
            let (name, role) = if at == 0 { (node.node.clone(), role.to_owned()) } else { (String::new(), String::new()) };
            let result = if check.pass { "pass" } else { "FAIL" };
            table.row(vec![name, role, check.rule.clone(), result.to_owned(), check.detail.clone()]);
        }
        if let Some(row) = ranked(node) {
            table.row(vec![String::new(), String::new(), "ranked by".to_owned(), "-".to_owned(), row]);
        }
    }
    let mut text = table.render(no_headers);
    let changes: Vec<&NodePlacement> = view.nodes.iter().filter(|node| !node.change.is_empty()).collect();
    if !changes.is_empty() {
        text.push_str("\nTo have it on:\n");
        changes.iter().for_each(|node| text.push_str(&format!("  {}: {}\n", node.node, node.change)));
        text.push_str(&format!("The smallest change: {}\n", view.smallest_change));
    }
    text
}

/// What ranks a node among those that fit.
fn ranked(node: &NodePlacement) -> Option<String> {
    let spread = node.spread_places.map(|places| {
        let value = node.spread_value.as_deref().unwrap_or("without the label");
        format!("spreadBy {value} has {places}")
    });
    let prefer = (node.prefer > 0).then(|| format!("prefer {}", node.prefer));
    let parts: Vec<String> = spread.into_iter().chain(prefer).chain([format!("{} instances there", node.instances)]).collect();
    node.fits.then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use cluster_schemas::assignment::Role;
    use cluster_schemas::placement::RuleCheck;

    use super::*;

    #[test]
    fn nodes_rules_and_changes_stand_in_one_table() {
        let rule = |rule: &str, pass, detail: &str| RuleCheck { rule: rule.to_owned(), pass, detail: detail.to_owned() };
        let node = |name: &str, role, fits, rules, change: &str| NodePlacement {
            node: name.to_owned(),
            role,
            fits,
            rules,
            change: change.to_owned(),
            ..NodePlacement::default()
        };
        let view = PlacementView {
            app: "db".to_owned(),
            nodes: vec![
                node(
                    "n1",
                    Some(Role::Active),
                    true,
                    vec![rule("heard", true, ""), rule("resources cpu", true, "cpu 0 of 2 reserved, 1 asked")],
                    "",
                ),
                node("n2", None, false, vec![rule("heard", false, "")], "bring n2 back"),
            ],
            smallest_change: "bring n2 back".to_owned(),
        };
        let text = table(&view, false);
        let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "NODE ROLE RULE RESULT NUMBERS",
                "n1 Active heard pass",
                "resources cpu pass cpu 0 of 2 reserved, 1 asked",
                "ranked by - 0 instances there",
                "n2 - heard FAIL",
                "",
                "To have it on:",
                "n2: bring n2 back",
                "The smallest change: bring n2 back",
            ]
        );
    }
}
