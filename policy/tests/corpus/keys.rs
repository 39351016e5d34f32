//! Keys of every shape. They are put together here, so that no file of ours looks as if it held keys.

use policy::MintedToken;
use policy::scan::Shape;

use super::{BASE62, DIGITS, Draw, FOR_URLS, HEX};

/// So the random parts of newer keys of OpenAI are held together: `OpenAI` in base64.
const MARK: &str = "T3BlbkFJ";

/// A key of this shape as its owner gets it, its random parts drawn.
pub(crate) fn key(shape: Shape, draw: &mut Draw) -> String {
    match shape {
        Shape::OpenAiProject => marked("sk-proj-", 74, draw),
        Shape::OpenAiServiceAccount => marked("sk-svcacct-", 74, draw),
        Shape::OpenAiAdmin => marked("sk-admin-", 58, draw),
        Shape::OpenAiLegacy => format!("sk-{}{MARK}{}", draw.of(BASE62, 20), draw.of(BASE62, 20)),
        Shape::Anthropic => format!("sk-ant-api03-{}AA", draw.of(FOR_URLS, 93)),
        Shape::AnthropicAdmin => format!("sk-ant-admin01-{}AA", draw.of(FOR_URLS, 93)),
        Shape::Google => format!("AIzaSy{}{}", draw.of(FOR_URLS, 32), draw.of(BASE62, 1)),
        Shape::Groq => format!("gsk_{}WGdyb3FY{}", draw.of(BASE62, 20), draw.of(BASE62, 24)),
        Shape::OpenRouter => format!("sk-or-v1-{}", draw.of(HEX, 64)),
        Shape::HuggingFace => format!("hf_{}", draw.of(&BASE62[..52], 34)),
        Shape::GitHubPersonal => format!("ghp_{}", draw.of(BASE62, 36)),
        Shape::GitHubOAuth => format!("gho_{}", draw.of(BASE62, 36)),
        Shape::GitHubApp => format!("ghs_{}", draw.of(BASE62, 36)),
        Shape::GitHubFineGrained => format!("github_pat_{}_{}", draw.of(BASE62, 22), draw.of(BASE62, 59)),
        Shape::AwsKeyId => format!("AKIA{}", draw.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        Shape::Slack => {
            let (team, bot) = (draw.of(DIGITS, 11), draw.of(DIGITS, 12));
            format!("xoxb-1{team}-1{bot}-{}", draw.of(BASE62, 24))
        }
        Shape::StripeLive => format!("sk_live_{}", draw.of(BASE62, 24)),
        Shape::PrivateKey => private_key(draw),
        Shape::Capability => {
            let mut bytes = || draw.number().to_be_bytes();
            let secret = [bytes(), bytes(), bytes(), bytes()].concat();
            let secret = secret.try_into().expect("four times eight bytes");
            MintedToken::from_random(bytes(), secret).text
        }
    }
}

fn marked(prefix: &str, half: usize, draw: &mut Draw) -> String {
    // Scanners want a letter or a digit at the end.
    let (before, after, last) = (draw.of(FOR_URLS, half), draw.of(FOR_URLS, half - 1), draw.of(BASE62, 1));
    format!("{prefix}{before}{MARK}{after}{last}")
}

fn private_key(draw: &mut Draw) -> String {
    let label = format!("RSA {} KEY", "PRIVATE");
    let first = format!("MIIEpAIBAAKCAQEA{}\n", draw.of(BASE62, 48));
    let lines: String = (0..24).map(|_| draw.of(BASE62, 64) + "\n").collect();
    format!("-----BEGIN {label}-----\n{first}{lines}{}==\n-----END {label}-----\n", draw.of(BASE62, 30))
}
