//! `completions`
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {}
impl Completions {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
