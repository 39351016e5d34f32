//! `provider`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Provider {
    List,
}
impl Provider {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
