//! Why an App is where it is, node by node: `GET /v1/apps/NAME/placement`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assignment::Role;

/// Every node, and every rule of one App's placement there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementView {
    /// The App.
    pub app: String,
    /// Sorted by name.
    pub nodes: Vec<NodePlacement>,
    /// The smallest change by which a node more could run it; empty where every node does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub smallest_change: String,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Its name.
    pub node: String,
    /// What it is for the App by a plan made now; absent where it has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Why, where it has a place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether every rule lets it run the App.
    pub fits: bool,
    /// Each rule that the App or the moment makes.
    pub rules: Vec<RuleCheck>,
    /// Sum of the weights of `prefer` that it matches.
    pub prefer: u32,
    /// With `spreadBy`: its value of that label; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_value: Option<String>,
    /// With `spreadBy`: places that this App has on nodes with the same value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_places: Option<u32>,
    /// Instances of all Apps that run there.
    pub instances: u32,
    /// What would let it run the App, or have it do so; empty where it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub change: String,
}

/// One rule on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleCheck {
    /// The rule, such as `nodeSelector disk=ssd`.
    pub rule: String,
    /// Whether it lets the node run the App.
    pub pass: bool,
    /// Numbers, where there are any, such as `memory 3Gi of 4Gi reserved, 1Gi asked`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
