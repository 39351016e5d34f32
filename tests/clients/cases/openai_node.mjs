// Makes one call with the OpenAI SDK, as an agent would, and prints what came back: openai_node.mjs ACTION.
// The base URL and the key come from the environment, as in any program that was not written for the gateway.

import OpenAI from "openai";

const MODEL = "gpt-4o-mini";
const WEATHER = { type: "function", function: { name: "get_weather", parameters: { type: "object" } } };

const LONG = "TELL_ME_EVERYTHING";

const client = new OpenAI({ maxRetries: 0, timeout: 20_000 });
// As everybody has it: what the gateway answers must stop it from trying again.
const retrying = new OpenAI({ timeout: 20_000 });

const question = (content) => ({ model: MODEL, messages: [{ role: "user", content }] });
const ask = (content, options = {}) => client.chat.completions.create({ ...question(content), ...options });
const chatUsage = ({ usage }) => [usage.prompt_tokens, usage.completion_tokens];
const responsesUsage = ({ usage }) => [usage.input_tokens, usage.output_tokens];

const cut = (pieces, end) => ({ ...end, has_text: pieces.join("").length > 1000 });

function joined(pieces) {
  const present = pieces.filter(Boolean);
  return { text: present.join(""), pieces: present.length };
}

const actions = {
  async chat() {
    const answer = await ask("ping");
    return { text: answer.choices[0].message.content, usage: chatUsage(answer) };
  },

  // The loop of the SDK's own documentation: it breaks on a chunk that has no choices, so the
  // usage that the gateway asks for on its own account must not reach a program that did not.
  async chat_streamed() {
    const pieces = [];
    for await (const chunk of await ask("ping", { stream: true })) pieces.push(chunk.choices[0].delta.content);
    return joined(pieces);
  },

  async chat_streamed_with_usage() {
    const pieces = [];
    let usage = null;
    for await (const chunk of await ask("ping", { stream: true, stream_options: { include_usage: true } })) {
      pieces.push(...chunk.choices.map((choice) => choice.delta.content));
      if (chunk.usage) usage = chatUsage(chunk);
    }
    return { ...joined(pieces), usage };
  },

  async responses() {
    const answer = await client.responses.create({ model: MODEL, input: "ping" });
    return { text: answer.output_text, usage: responsesUsage(answer) };
  },

  async responses_streamed() {
    const pieces = [];
    let usage = null;
    for await (const event of await client.responses.create({ model: MODEL, input: "ping", stream: true })) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
      if (event.type === "response.completed") usage = responsesUsage(event.response);
    }
    return { ...joined(pieces), usage };
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: "ping" });
    return { embedding: answer.data[0].embedding };
  },

  async models() {
    const listed = await client.models.list();
    return { has_models: listed.data.length > 0 };
  },

  async tool_round() {
    const messages = [{ role: "user", content: "ASK_THE_TOOL" }];
    const request = { model: MODEL, tools: [WEATHER], messages };
    const { message } = (await client.chat.completions.create(request)).choices[0];
    const call = message.tool_calls[0];
    messages.push(message, { role: "tool", tool_call_id: call.id, content: "sunny" });
    const answer = await client.chat.completions.create(request);
    return {
      tool: call.function.name,
      arguments: JSON.parse(call.function.arguments),
      text: answer.choices[0].message.content,
    };
  },

  async over_budget() {
    return { text: (await retrying.chat.completions.create(question("ping"))).choices[0].message.content };
  },

  async chat_cut() {
    const pieces = [];
    let finish = null;
    for await (const chunk of await retrying.chat.completions.create({ ...question(LONG), stream: true })) {
      pieces.push(chunk.choices[0].delta.content ?? "");
      finish = chunk.choices[0].finish_reason ?? finish;
    }
    return cut(pieces.slice(0, -1), { finish, message: pieces.at(-1).trim() });
  },

  async responses_cut() {
    const pieces = [];
    let last = null;
    for await (const event of await retrying.responses.create({ model: MODEL, input: LONG, stream: true })) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
      last = event;
    }
    const { code, message } = last.response.error;
    return cut(pieces, { event: last.type, code, message });
  },

  async rate_limited() {
    return { text: (await ask("RATE_LIMIT_ME")).choices[0].message.content };
  },
};

let result;
try {
  result = await actions[process.argv[2]]();
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  result = { error: error.constructor.name, status: error.status, code: error.code, message: error.message };
}
console.log(JSON.stringify(result));
