//! `doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {}
impl Doctor {
    pub(crate) fn run(
        &self,
        _app: &crate::app::App,
    ) -> Result<std::process::ExitCode, crate::failure::Failure> {
        Ok(std::process::ExitCode::SUCCESS)
    }
}
