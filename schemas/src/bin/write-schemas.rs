//! Writes the JSON Schemas into `schemas/json/`. A test fails while they differ from the types.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
    std::fs::create_dir_all(&folder)?;
    let mut text = serde_json::to_string_pretty(&cluster_schemas::schema::app_schema())?;
    text.push('\n');
    std::fs::write(folder.join("app.json"), text)?;
    Ok(())
}
