//! `log`
#[derive(Debug, clap::Args)]
pub(crate) struct Log {}
impl Log {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
