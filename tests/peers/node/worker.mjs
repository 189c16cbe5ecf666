// A worker in Node, written from docs/protocol.md alone, with @msgpack/msgpack: everything is asynchronous here.
import { Socket } from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

if (process.env.BULKHEAD_PROTOCOL !== "1") {
  console.error("this worker speaks protocol 1");
  process.exit(64);
}
const channel = new Socket({ fd: Number(process.env.BULKHEAD_CHANNEL_FD), readable: true, writable: true });
delete process.env.BULKHEAD_CHANNEL_FD;
delete process.env.BULKHEAD_PROTOCOL;
channel.on("error", () => process.exit(0));
channel.on("end", () => process.exit(0));

const deadlines = new Map();
const cancels = new Map(); // call: what to do when it is cancelled
const questions = new Map(); // our own requests
const waitingForCredit = [];
let credit = 0;
let nextId = 1;

const send = (message) => channel.write(encode(message));

async function notify(method, ...params) {
  if (method === "$/event" || method === "$/progress") {
    while (credit <= 0) await new Promise((resume) => waitingForCredit.push(resume));
    --credit;
  }
  send([2, method, params]);
}

function ask(name, ...params) {
  const id = nextId++;
  send([0, id, name, params]);
  return new Promise((resolve, reject) => questions.set(id, { resolve, reject }));
}

const failure = (message, code = "plugin_error", data = undefined) =>
  Object.assign(new Error(message), { error: data === undefined ? { code, message } : { code, message, data } });

const methods = {
  mean(call, numbers) {
    if (numbers.length === 0) throw failure("no numbers", "plugin_error", { line: 3 });
    return numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
  },
  upper: (call, text) => text.toUpperCase(),
  size: (call, data) => (data instanceof Uint8Array ? data.length : null),
  deadline: (call) => deadlines.get(call) ?? null,
  environment: () => Object.keys(process.env).filter((name) => name.startsWith("BULKHEAD_")),
  until_cancelled: (call) =>
    new Promise((_, reject) => cancels.set(call, () => reject(failure("stopped as asked", "cancelled")))),
  async report(call, count) {
    for (let i = 0; i < count; ++i) {
      await notify("$/progress", call, i);
      await notify("$/event", "tick", { i });
    }
    return count;
  },
  async relay(call, name, argument) {
    try {
      return await ask(name, argument);
    } catch (problem) {
      throw failure("the host said: " + problem.message, problem.code);
    }
  },
  log: (call, level, text) => notify("$/log", level, text).then(() => null),
  crash: () => process.abort(),
  garbage: () => new Promise(() => channel.write("\x01\x02\x03 this is no message")),
};
const description = {
  id: "node",
  name: "A worker in Node",
  version: "1.0",
  methods: Object.keys(methods).map((name) => ({ name, doc: "", signature: name + "(...)" })),
};

async function answer(call, method, params) {
  try {
    let result = null;
    if (method === "$/hello") {
      credit = params[0].event_credit;
      result = { protocol: 1, name: "node" };
    } else if (method === "$/describe") {
      result = description;
    } else if (method !== "$/ping" && method !== "$/drain") {
      if (!Object.hasOwn(methods, method)) throw failure("no method " + method, "rejected");
      result = (await methods[method](call, ...params)) ?? null;
    }
    send([1, call, null, result]);
    if (method === "$/hello") notify("$/ready", description);
  } catch (problem) {
    send([1, call, problem.error ?? String(problem.message), null]);
  }
}

const notifications = {
  "$/deadline": (call, ms) => deadlines.set(call, ms),
  "$/cancel": (call) => cancels.get(call)?.(),
  "$/credit": (more) => {
    credit += more;
    waitingForCredit.splice(0).forEach((resume) => resume());
  },
  "$/shutdown": () => {
    console.log("node: leaving in good order");
    process.exit(0);
  },
};

for await (const message of decodeMultiStream(channel)) {
  if (message[0] === 0) answer(message[1], message[2], message[3]);
  else if (message[0] === 2) notifications[message[1]]?.(...message[2]);
  else {
    const question = questions.get(message[1]);
    questions.delete(message[1]);
    if (message[2] === null) question.resolve(message[3]);
    else question.reject(message[2]);
  }
}
process.exit(0);
