// Makes one call with the Anthropic SDK, as an agent would, and prints what came back: anthropic_node.mjs ACTION.
// The base URL and the key come from the environment, as in any program that was not written for the gateway.

import Anthropic from "@anthropic-ai/sdk";

const MODEL = "claude-sonnet-4-5";
const WEATHER = { name: "get_weather", input_schema: { type: "object" } };

const LONG = "TELL_ME_EVERYTHING";

const client = new Anthropic({ maxRetries: 0, timeout: 20_000 });
// As everybody has it: what the gateway answers must stop it from trying again.
const retrying = new Anthropic({ timeout: 20_000 });

const request = (content) => ({ model: MODEL, max_tokens: 200, messages: [{ role: "user", content }] });
const streamedMessage = (parameters) => client.messages.stream(parameters).finalMessage();

const actions = {
  async messages() {
    const answer = await client.messages.create(request("ping"));
    return { text: answer.content[0].text, usage: [answer.usage.input_tokens, answer.usage.output_tokens] };
  },

  async messages_streamed() {
    const pieces = [];
    const usage = [0, 0];
    for await (const event of await client.messages.create({ ...request("ping"), stream: true })) {
      if (event.type === "message_start") usage[0] = event.message.usage.input_tokens;
      if (event.type === "content_block_delta") pieces.push(event.delta.text);
      if (event.type === "message_delta") usage[1] = event.usage.output_tokens;
    }
    return { text: pieces.join(""), pieces: pieces.length, usage };
  },

  // Streamed, because a tool's arguments arrive in pieces that only make sense together.
  async tool_round() {
    const roundTrip = { ...request("ASK_THE_TOOL"), tools: [WEATHER] };
    const message = await streamedMessage(roundTrip);
    const call = message.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
    roundTrip.messages.push(
      { role: "assistant", content: message.content },
      { role: "user", content: [result] },
    );
    const answer = await streamedMessage(roundTrip);
    return { tool: call.name, arguments: call.input, text: answer.content[0].text };
  },

  async over_budget() {
    return { text: (await retrying.messages.create(request("ping"))).content[0].text };
  },

  async messages_cut() {
    const pieces = [];
    try {
      const long = { ...request(LONG), max_tokens: 100_000, stream: true };
      for await (const event of await retrying.messages.create(long)) {
        if (event.type === "content_block_delta") pieces.push(event.delta.text);
      }
    } catch (error) {
      if (!(error instanceof Anthropic.APIError)) throw error;
      const { type, message } = error.error.error;
      return { error: true, type, message, has_text: pieces.join("").length > 1000 };
    }
    return { error: false };
  },

  async rate_limited() {
    return { text: (await client.messages.create(request("RATE_LIMIT_ME"))).content[0].text };
  },
};

let result;
try {
  result = await actions[process.argv[2]]();
} catch (error) {
  if (!(error instanceof Anthropic.APIError)) throw error;
  result = { error: error.constructor.name, status: error.status, code: error.error?.error?.code ?? null };
}
console.log(JSON.stringify(result));
