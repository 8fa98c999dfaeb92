//! x
use anyhow::Result;
pub(crate) struct Options;
impl Options {
    pub(crate) fn parse(_: &[&str]) -> Result<Self> {
        Ok(Self)
    }
}
pub(crate) fn run(_: &crate::workspace::Workspace, _: &Options) -> Result<()> {
    Ok(())
}
