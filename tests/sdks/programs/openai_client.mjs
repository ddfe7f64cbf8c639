// The official OpenAI SDK for Node, configured by the environment only. Prints one JSON object: check → what came of it.
import OpenAI, { APIError } from "openai";

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { type: "function", function: { name: "weather", parameters: schema } };
const messages = [{ role: "user", content: "Hello" }];
const model = "gpt-4.1-mini";

let requests = 0;
const realFetch = globalThis.fetch;
globalThis.fetch = (...call) => {
  requests += 1;
  return realFetch(...call);
};
const client = new OpenAI();
const usage = (value) => [value.prompt_tokens, value.completion_tokens, value.total_tokens];

const checks = {
  async plain() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 50 });
    return { text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason, usage: usage(answer.usage) };
  },
  async cut() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 3 });
    return { finish: answer.choices[0].finish_reason, usage: usage(answer.usage) };
  },
  async streamed() {
    let text = "";
    let chunks = 0;
    const found = [];
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      chunks += 1;
      if (chunk.usage) found.push(chunk.usage);
      text += chunk.choices.map((choice) => choice.delta.content ?? "").join("");
    }
    return { text, usage: found, chunks };
  },
  async streamed_usage() {
    let empty = 0;
    const found = [];
    const request = { model, messages, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create(request)) {
      if (chunk.choices.length === 0) empty += 1;
      if (chunk.usage) found.push(usage(chunk.usage));
    }
    return { usage: found, empty };
  },
  async tools() {
    const answer = await client.chat.completions.create({ model, messages, tools: [tool], tool_choice: "required" });
    const message = answer.choices[0].message;
    const call = message.tool_calls[0];
    const history = [...messages, message, { role: "tool", tool_call_id: call.id, content: "sunny" }];
    const after = await client.chat.completions.create({ model, messages: history, tools: [tool] });
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments), after: after.choices[0].finish_reason };
  },
  async tools_streamed() {
    const stream = client.chat.completions.stream({ model, messages, tools: [tool], tool_choice: "required" });
    const answer = await stream.finalChatCompletion();
    const call = answer.choices[0].message.tool_calls[0];
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments), finish: answer.choices[0].finish_reason };
  },
  async vision() {
    const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
    const answer = await client.chat.completions.create({ model, messages: [{ role: "user", content: [image] }] });
    return { text: answer.choices[0].message.content };
  },
  async completions() {
    const answer = await client.completions.create({ model: "gpt-3.5-turbo-instruct", prompt: "Hello", max_tokens: 5 });
    return { usage: usage(answer.usage) };
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"] });
    const request = { model: "text-embedding-3-small", input: "one", encoding_format: "float", dimensions: 8 };
    const floats = await client.embeddings.create(request);
    return { lengths: answer.data.map((item) => item.embedding.length), floats: floats.data[0].embedding.length };
  },
  async moderations() {
    return { flagged: (await client.moderations.create({ input: "Hello" })).results[0].flagged };
  },
  async responses() {
    const answer = await client.responses.create({ model, input: "Hello", max_output_tokens: 50 });
    return { text: answer.output_text, status: answer.status, total: answer.usage.total_tokens };
  },
  async responses_streamed() {
    const kinds = [];
    let text = "";
    let total = null;
    for await (const event of await client.responses.create({ model, input: "Hello", stream: true })) {
      kinds.push(event.type);
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "response.completed") total = event.response.usage.total_tokens;
    }
    return { first: kinds[0], last: kinds.at(-1), text, total };
  },
  async responses_tools() {
    const tools = [{ type: "function", name: "weather", parameters: schema, strict: false }];
    const answer = await client.responses.create({ model, input: "Hello", tools, tool_choice: "required" });
    return { name: answer.output[0].name, arguments: JSON.parse(answer.output[0].arguments) };
  },
  async models() {
    const ids = [];
    for await (const item of client.models.list()) ids.push(item.id);
    return { ids };
  },
  async one_model() {
    return { id: (await client.models.retrieve(model)).id };
  },
  async asynchronous() {
    const calls = [1, 2, 3, 4, 5].map(() => client.chat.completions.create({ model, messages }));
    const answers = await Promise.all(calls);
    const texts = answers.map((answer) => answer.choices[0].message.content);
    return { texts: new Set(texts).size, text: texts[0] };
  },
  async plain_counted() {
    return refused(client, {});
  },
  async unknown_model() {
    return refused(client, { model: "gpt-does-not-exist" });
  },
};

async function refused(refusedClient, members) {
  requests = 0;
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  try {
    await refusedClient.chat.completions.create({ model, messages, ...members });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, code, type, message } = error;
    return { class: error.constructor.name, status, code, type, message, requests, seconds: seconds() };
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
  process.env.OPENAI_API_KEY = key;
  results[name] = await attempt(() => refused(new OpenAI(nodeOptions(options)), members));
}
console.log(JSON.stringify(results));
