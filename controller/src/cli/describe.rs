//! `controller describe`: what a plugin says about itself.

use serde_json::Value;

use super::{
    args::DescribeArgs,
    artifact,
    exit::{Exit, Failure},
    output::Output,
};

/// Lints the library, loads it in the sandbox, and prints its descriptor byte for byte.
pub(super) async fn run(args: &DescribeArgs, output: &Output) -> Result<Exit, Failure> {
    let (bytes, elf) = artifact::read(&args.file)?;
    let descriptor = artifact::describe(&args.file, &bytes, elf.platform).await?;
    artifact::parse(&args.file, &descriptor)?;
    if output.is_json() {
        let parsed: Value = serde_json::from_slice(&descriptor).unwrap_or_default();
        output.result("", serde_json::json!({ "elf": elf, "descriptor": parsed }));
    } else {
        output.bytes(&descriptor);
    }
    Ok(Exit::Ok)
}
