//! What providers and operations are called in the conventions of OpenTelemetry.

use policy::RouteClass;
use storage::RequestRow;

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Chat,
    TextCompletion,
    GenerateContent,
    Embeddings,
    /// Nothing: what is asked for costs nothing.
    None,
}

impl Operation {
    pub(super) const ALL: [Self; 5] =
        [Self::Chat, Self::TextCompletion, Self::GenerateContent, Self::Embeddings, Self::None];

    /// What a request asks for, by its route.
    pub(super) fn of(row: &RequestRow) -> Self {
        let path = row.path.as_str();
        match row.route_class {
            Some(RouteClass::Embed) => Self::Embeddings,
            Some(RouteClass::Generate) if path.contains(":generateContent") => Self::GenerateContent,
            Some(RouteClass::Generate) if path.contains(":streamGenerateContent") => Self::GenerateContent,
            Some(RouteClass::Generate)
                if path.ends_with("/completions") && !path.ends_with("/chat/completions") =>
            {
                Self::TextCompletion
            }
            Some(RouteClass::Generate) => Self::Chat,
            _ => Self::None,
        }
    }

    pub(super) fn index(self) -> usize {
        super::place(&Self::ALL, &self)
    }

    /// The conventions' name; empty where there is no operation.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::GenerateContent => "generate_content",
            Self::Embeddings => "embeddings",
            Self::None => "",
        }
    }
}

/// The conventions' name of a provider, where they have one; otherwise ours.
pub(super) fn provider(id: &str) -> &str {
    match id {
        "google" => "gcp.gemini",
        "azure-openai" => "azure.ai.openai",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "bedrock" => "aws.bedrock",
        other => other,
    }
}
