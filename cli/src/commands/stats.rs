//! `stats`
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {}
impl Stats {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
