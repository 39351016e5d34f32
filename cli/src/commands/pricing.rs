//! `pricing`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Pricing {
    List,
}
impl Pricing {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
