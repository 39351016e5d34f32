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
    /// Gemini's lists of what the tokens were: of the input, of what of it was cached, of the output.
    Modalities(Whole),
    /// What an entry of such a list is about, and its count.
    Modality(Whole),
    ModalityCount(Whole),
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

/// Which tokens a list of modalities splits up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    Input,
    Cached,
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
    own.unwrap_or_else(|| openai(object, key))
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
        // Perplexity's.
        b"num_search_queries" => Place::Count(Counted::Searches),
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
        (Place::Usage, b"promptTokensDetails") => Place::Modalities(Whole::Input),
        (Place::Usage, b"cacheTokensDetails") => Place::Modalities(Whole::Cached),
        (Place::Usage, b"candidatesTokensDetails") => Place::Modalities(Whole::Output),
        (Place::Modalities(whole), b"modality") => Place::Modality(whole),
        (Place::Modalities(whole), b"tokenCount") => Place::ModalityCount(whole),
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
