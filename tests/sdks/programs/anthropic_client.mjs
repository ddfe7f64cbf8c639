// The official Anthropic SDK for Node, configured by the environment only. Prints one JSON object: check → what came of it.
import Anthropic, { APIError } from "@anthropic-ai/sdk";

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { name: "weather", input_schema: schema };
const messages = [{ role: "user", content: "Hello" }];
const model = "claude-sonnet-4-6";
const max_tokens = 50;

let requests = 0;
const realFetch = globalThis.fetch;
globalThis.fetch = (...call) => {
  requests += 1;
  return realFetch(...call);
};
const client = new Anthropic();

const checks = {
  async plain() {
    const answer = await client.messages.create({ model, messages, max_tokens });
    const { input_tokens, output_tokens } = answer.usage;
    return { text: answer.content[0].text, stop: answer.stop_reason, usage: [input_tokens, output_tokens] };
  },
  async cut() {
    const answer = await client.messages.create({ model, messages, max_tokens: 3 });
    return { stop: answer.stop_reason, output: answer.usage.output_tokens };
  },
  async streamed() {
    const kinds = [];
    let text = "";
    let output = null;
    for await (const event of await client.messages.create({ model, messages, max_tokens, stream: true })) {
      kinds.push(event.type);
      if (event.type === "content_block_delta") text += event.delta.text;
      if (event.type === "message_delta") output = event.usage.output_tokens;
    }
    return { first: kinds[0], last: kinds.at(-1), text, output };
  },
  async stream_helper() {
    let text = "";
    const stream = client.messages.stream({ model, messages, max_tokens }).on("text", (part) => (text += part));
    const final = await stream.finalMessage();
    return { text, same: final.content[0].text === text, output: final.usage.output_tokens };
  },
  async tools() {
    const answer = await client.messages.create({ model, messages, max_tokens, tools: [tool], tool_choice: { type: "any" } });
    const block = answer.content[0];
    const history = [
      ...messages,
      { role: "assistant", content: [{ type: "tool_use", id: block.id, name: block.name, input: block.input }] },
      { role: "user", content: [{ type: "tool_result", tool_use_id: block.id, content: "sunny" }] },
    ];
    const after = await client.messages.create({ model, messages: history, max_tokens, tools: [tool] });
    return { stop: answer.stop_reason, name: block.name, input: block.input, after: after.stop_reason };
  },
  async tools_streamed() {
    const final = await client.messages
      .stream({ model, messages, max_tokens, tools: [tool], tool_choice: { type: "any" } })
      .finalMessage();
    return { stop: final.stop_reason, name: final.content[0].name, input: final.content[0].input };
  },
  async vision() {
    const source = { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" };
    const content = [{ type: "image", source }, { type: "text", text: "What?" }];
    const answer = await client.messages.create({ model, messages: [{ role: "user", content }], max_tokens });
    return { text: answer.content[0].text };
  },
  async count_tokens() {
    return { input: (await client.messages.countTokens({ model, messages })).input_tokens };
  },
  async models() {
    const ids = [];
    for await (const item of client.models.list()) ids.push(item.id);
    return { ids };
  },
  async asynchronous() {
    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => client.messages.create({ model, messages, max_tokens })));
    const texts = answers.map((answer) => answer.content[0].text);
    return { texts: new Set(texts).size, text: texts[0] };
  },
  async plain_counted() {
    return refused(client, {});
  },
  async unknown_model() {
    return refused(client, { model: "claude-does-not-exist" });
  },
};

async function refused(refusedClient, members) {
  requests = 0;
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  try {
    await refusedClient.messages.create({ model, messages, max_tokens, ...members });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, message } = error;
    const has_payment_class = "PaymentRequiredError" in Anthropic;
    return { class: error.constructor.name, status, type: error.error?.error?.type, message, requests, seconds: seconds(), has_payment_class };
  }
  return { class: null, requests, seconds: seconds() };
}

function nodeOptions({ max_retries }) {
  return max_retries === undefined ? {} : { maxRetries: max_retries };
}

async function attempt(check) {
  try {
    return await check();
  } catch (error) {
    return { failed: String(error.stack) };
  }
}

const results = {};
for (const [name, check] of Object.entries(checks)) {
  if ((process.env.ONLY ?? name) === name) results[name] = await attempt(check);
}
for (const [name, { key, client: options = {}, ...members }] of Object.entries(JSON.parse(process.env.REFUSALS ?? "{}"))) {
  process.env.ANTHROPIC_API_KEY = key;
  results[name] = await attempt(() => refused(new Anthropic(nodeOptions(options)), members));
}
console.log(JSON.stringify(results));
