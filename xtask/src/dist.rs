//! x
use anyhow::Result;
pub(crate) fn build(_: &crate::workspace::Workspace) -> Result<()> {
    Ok(())
}
pub(crate) fn check(_: &crate::workspace::Workspace) -> Result<()> {
    Ok(())
}
