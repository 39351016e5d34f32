//! Hot: where in an answer the values stand that the meter reads, for each wire format.
//!
//! Array elements stand where their array does, so `choices[0].delta` is `choices.delta`. Sources: the providers' API
//! references, read 2026-11.

use crate::wire::WireFormat;

/// The place of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Root,
    /// An object that holds a whole answer: of the Responses API's last event, of Cohere 1's.
    Response,
    /// Anthropic's `message_start.message`.
    Message,
    /// `choices` or `candidates`.
    Choices,
    /// Cohere's `delta`.
    Delta,
    /// Generated text, or an object with such text in it.
    Text,
    XGroq,
    /// The object with the counts.
    Usage,
    InputDetails,
    OutputDetails,
    /// What the tokens from a cache were.
    CacheDetails,
    /// Lists of what the tokens were: Gemini's of modalities, Bedrock's of lifetimes.
    Split(Whole),
    /// What an entry of such a list is about, and its count.
    SplitKind(Whole),
    SplitCount(Whole),
    /// The answers of Amazon's own models.
    Results,
    /// Anthropic's `server_tool_use`.
    ServerTools,
    CacheCreation,
    /// Cohere's `billed_units` and its `tokens`, of which the first are the ones to pay.
    Billed,
    Unbilled,
    Meta,
    CostDetails,
    Count(Counted),
    /// `usage.cost`: an amount, or with Perplexity an object.
    Cost,
    /// xAI's `cost_in_usd_ticks`.
    CostTicks,
    IsByok,
    UpstreamCost,
    Model,
    ServiceTier,
    /// Anthropic's `speed`, which is priced like a tier.
    Speed,
    /// The event's type.
    Type,
    FinishReason,
    Done,
    Error,
}

/// Which tokens a list splits up by what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    Input,
    Cached,
    /// What was written to a cache, by its lifetime.
    Written,
    Output,
}

/// The counts that reports are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Input that includes what was read from and written to a cache.
    Input,
    /// Input that does not, as Anthropic counts.
    UncachedInput,
    Output,
    Total,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    /// A part of the output.
    Reasoning,
    /// Output that `Output` does not include.
    Thoughts,
    /// Input that `Input` does not include.
    ToolInput,
    UnbilledInput,
    UnbilledOutput,
    /// Parts of the input, cached ones included; of what was cached; and of the output.
    AudioInput,
    ImageInput,
    AudioCached,
    ImageCached,
    AudioOutput,
    ImageOutput,
    /// What was read to answer, and the reasoning beside it: output that `Output` does not include.
    Citations,
    OuterReasoning,
    /// Searches of the web, which are no tokens.
    Searches,
}

impl Counted {
    pub(super) const COUNT: usize = Self::Searches as usize + 1;
}

/// The place of the member `key` of the object at `object`.
pub(super) fn member(wire: WireFormat, object: Place, key: &[u8]) -> Place {
    if object == Place::Text {
        return text_member(key);
    }
    let own = match wire {
        WireFormat::OpenAi => None,
        WireFormat::Anthropic => anthropic(object, key),
        WireFormat::Google => google(object, key),
        WireFormat::Ollama => ollama(object, key),
        WireFormat::Cohere => cohere(object, key),
    };
    // Every provider has OpenAI-compatible routes as well. Names they share, the provider's own meaning decides.
    own.or_else(|| bedrock(object, key)).unwrap_or_else(|| openai(object, key))
}

/// Strings in generated content count as text, whatever they are called, but for what was not generated.
fn text_member(key: &[u8]) -> Place {
    match key {
        b"role" | b"type" | b"object" | b"status" | b"id" | b"call_id" | b"data" | b"mimeType"
        | b"signature" | b"thoughtSignature" | b"encrypted_content" | b"stop_reason" | b"stop_sequence"
        | b"finish_reason" => Place::Nowhere,
        // OpenRouter repeats the text of `reasoning` in it.
        b"reasoning_details" => Place::Nowhere,
        _ => Place::Text,
    }
}

fn openai(object: Place, key: &[u8]) -> Place {
    match (object, key) {
        (Place::Root | Place::Response | Place::XGroq, b"usage") => Place::Usage,
        (Place::Root | Place::Response, b"model") => Place::Model,
        (Place::Root | Place::Response, b"service_tier") => Place::ServiceTier,
        (Place::Root, b"choices") => Place::Choices,
        (Place::Root, b"delta" | b"output") => Place::Text,
        (Place::Root, b"response") => Place::Response,
        (Place::Root, b"x_groq") => Place::XGroq,
        (Place::Root, b"type") => Place::Type,
        (Place::Root, b"error") => Place::Error,
        (Place::Choices, b"delta" | b"message" | b"text") => Place::Text,
        (Place::Choices, b"finish_reason") => Place::FinishReason,
        // Moonshot's, in the last event of a stream.
        (Place::Choices, b"usage") => Place::Usage,
        (Place::Usage, key) => openai_usage(key),
        // `cache_write_tokens` is OpenRouter's; they are among the prompt tokens, like the cached ones.
        (Place::InputDetails, b"cached_tokens") => Place::Count(Counted::CacheRead),
        (Place::InputDetails, b"cache_write_tokens") => Place::Count(Counted::CacheWrite),
        // OpenAI's two lifetimes, of which the longer one is dearer.
        (Place::InputDetails, b"cache_write_tokens_details") => Place::CacheCreation,
        (Place::CacheCreation, b"ttl_30m_tokens") => Place::Count(Counted::CacheWrite5m),
        (Place::CacheCreation, b"ttl_12h_tokens") => Place::Count(Counted::CacheWrite1h),
        (Place::InputDetails, b"audio_tokens") => Place::Count(Counted::AudioInput),
        (Place::InputDetails, b"image_tokens") => Place::Count(Counted::ImageInput),
        (Place::InputDetails, b"cached_tokens_details") => Place::CacheDetails,
        (Place::CacheDetails, b"audio_tokens") => Place::Count(Counted::AudioCached),
        (Place::CacheDetails, b"image_tokens") => Place::Count(Counted::ImageCached),
        (Place::OutputDetails, b"audio_tokens") => Place::Count(Counted::AudioOutput),
        (Place::OutputDetails, b"image_tokens") => Place::Count(Counted::ImageOutput),
        (Place::OutputDetails, b"reasoning_tokens") => Place::Count(Counted::Reasoning),
        (Place::Cost, b"total_cost") => Place::Cost,
        (Place::CostDetails, b"upstream_inference_cost") => Place::UpstreamCost,
        _ => Place::Nowhere,
    }
}

fn openai_usage(key: &[u8]) -> Place {
    match key {
        b"prompt_tokens" | b"input_tokens" => Place::Count(Counted::Input),
        b"completion_tokens" | b"output_tokens" => Place::Count(Counted::Output),
        b"total_tokens" => Place::Count(Counted::Total),
        // The names with one `token` are the Realtime and transcription APIs'.
        b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => Place::InputDetails,
        b"completion_tokens_details" | b"output_tokens_details" | b"output_token_details" => {
            Place::OutputDetails
        }
        // DeepSeek's, Moonshot's, Mistral's.
        b"prompt_cache_hit_tokens" | b"cached_tokens" | b"num_cached_tokens" => {
            Place::Count(Counted::CacheRead)
        }
        // Perplexity's, of deep research.
        b"num_search_queries" => Place::Count(Counted::Searches),
        b"citation_tokens" => Place::Count(Counted::Citations),
        b"reasoning_tokens" => Place::Count(Counted::OuterReasoning),
        b"cost" => Place::Cost,
        b"cost_details" => Place::CostDetails,
        b"is_byok" => Place::IsByok,
        b"cost_in_usd_ticks" => Place::CostTicks,
        _ => Place::Nowhere,
    }
}

fn anthropic(object: Place, key: &[u8]) -> Option<Place> {
    Some(match (object, key) {
        (Place::Root | Place::Message, b"usage") => Place::Usage,
        (Place::Root | Place::Message, b"model") => Place::Model,
        (Place::Root, b"message") => Place::Message,
        (Place::Root, b"content") => Place::Text,
        (Place::Usage, b"input_tokens") => Place::Count(Counted::UncachedInput),
        (Place::Usage, b"cache_read_input_tokens") => Place::Count(Counted::CacheRead),
        (Place::Usage, b"cache_creation_input_tokens") => Place::Count(Counted::CacheWrite),
        (Place::Usage, b"cache_creation") => Place::CacheCreation,
        (Place::Usage, b"service_tier") => Place::ServiceTier,
        (Place::Usage, b"speed") => Place::Speed,
        (Place::Usage, b"server_tool_use") => Place::ServerTools,
        (Place::ServerTools, b"web_search_requests") => Place::Count(Counted::Searches),
        (Place::OutputDetails, b"thinking_tokens") => Place::Count(Counted::Reasoning),
        (Place::CacheCreation, b"ephemeral_5m_input_tokens") => Place::Count(Counted::CacheWrite5m),
        (Place::CacheCreation, b"ephemeral_1h_input_tokens") => Place::Count(Counted::CacheWrite1h),
        _ => return None,
    })
}

fn google(object: Place, key: &[u8]) -> Option<Place> {
    Some(match (object, key) {
        // The Code Assist endpoint wraps each answer.
        (Place::Root, b"response") => Place::Root,
        (Place::Root, b"usageMetadata") => Place::Usage,
        (Place::Root, b"modelVersion") => Place::Model,
        (Place::Root, b"candidates") => Place::Choices,
        (Place::Choices, b"content") => Place::Text,
        (Place::Choices, b"finishReason") => Place::FinishReason,
        (Place::Usage, b"promptTokenCount") => Place::Count(Counted::Input),
        (Place::Usage, b"candidatesTokenCount") => Place::Count(Counted::Output),
        (Place::Usage, b"thoughtsTokenCount") => Place::Count(Counted::Thoughts),
        (Place::Usage, b"toolUsePromptTokenCount") => Place::Count(Counted::ToolInput),
        (Place::Usage, b"cachedContentTokenCount") => Place::Count(Counted::CacheRead),
        (Place::Usage, b"totalTokenCount") => Place::Count(Counted::Total),
        (Place::Usage, b"promptTokensDetails") => Place::Split(Whole::Input),
        (Place::Usage, b"cacheTokensDetails") => Place::Split(Whole::Cached),
        (Place::Usage, b"candidatesTokensDetails") => Place::Split(Whole::Output),
        (Place::Split(whole), b"modality") => Place::SplitKind(whole),
        (Place::Split(whole), b"tokenCount") => Place::SplitCount(whole),
        _ => return None,
    })
}

/// Bedrock's own shapes: the Converse API, and what Amazon's and Meta's models answer to an invocation. Others answer
/// in their makers' formats. Sources: docs.aws.amazon.com/bedrock, "TokenUsage" and "Inference request parameters".
fn bedrock(object: Place, key: &[u8]) -> Option<Place> {
    Some(match (object, key) {
        (Place::Root, b"stopReason") | (Place::Results, b"completionReason") => Place::FinishReason,
        // It leaves out what came from a cache or went into one.
        (Place::Usage, b"inputTokens") => Place::Count(Counted::UncachedInput),
        (Place::Usage, b"outputTokens") => Place::Count(Counted::Output),
        (Place::Usage, b"totalTokens") => Place::Count(Counted::Total),
        (Place::Usage, b"cacheReadInputTokens" | b"cacheReadInputTokenCount") => {
            Place::Count(Counted::CacheRead)
        }
        (Place::Usage, b"cacheWriteInputTokens" | b"cacheWriteInputTokenCount") => {
            Place::Count(Counted::CacheWrite)
        }
        (Place::Usage, b"cacheDetails") => Place::Split(Whole::Written),
        (Place::Split(Whole::Written), b"ttl") => Place::SplitKind(Whole::Written),
        (Place::Split(Whole::Written), b"inputTokens") => Place::SplitCount(Whole::Written),
        (Place::Root, b"generation") | (Place::Results, b"outputText") => Place::Text,
        (Place::Root, b"prompt_token_count" | b"inputTextTokenCount") => Place::Count(Counted::Input),
        (Place::Root, b"generation_token_count") | (Place::Results, b"tokenCount") => {
            Place::Count(Counted::Output)
        }
        (Place::Root, b"results") => Place::Results,
        _ => return None,
    })
}

fn ollama(object: Place, key: &[u8]) -> Option<Place> {
    Some(match (object, key) {
        (Place::Root, b"prompt_eval_count") => Place::Count(Counted::Input),
        (Place::Root, b"eval_count") => Place::Count(Counted::Output),
        (Place::Root, b"message" | b"thinking") => Place::Text,
        (Place::Root, b"done") => Place::Done,
        _ => return None,
    })
}

fn cohere(object: Place, key: &[u8]) -> Option<Place> {
    Some(match (object, key) {
        (Place::Root | Place::Response, b"meta") => Place::Meta,
        (Place::Root, b"delta") => Place::Delta,
        (Place::Root, b"message" | b"text") | (Place::Delta, b"message") => Place::Text,
        (Place::Root, b"event_type") => Place::Type,
        (Place::Delta, b"usage") => Place::Usage,
        (Place::Delta, b"finish_reason") => Place::FinishReason,
        (Place::Usage | Place::Meta, b"billed_units") => Place::Billed,
        (Place::Usage | Place::Meta, b"tokens") => Place::Unbilled,
        (Place::Billed, b"input_tokens") => Place::Count(Counted::Input),
        (Place::Billed, b"output_tokens") => Place::Count(Counted::Output),
        (Place::Unbilled, b"input_tokens") => Place::Count(Counted::UnbilledInput),
        (Place::Unbilled, b"output_tokens") => Place::Count(Counted::UnbilledOutput),
        _ => return None,
    })
}
