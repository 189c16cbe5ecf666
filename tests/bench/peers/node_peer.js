// Node's child_process.fork: see peer.cpp for what the driver asks. Serialisation is `advanced`, which carries a Buffer's
// bytes as they are.
'use strict';
const { fork } = require('child_process');

if (process.argv[2] === 'serve') {
  process.on('message', (message) => process.send(message));
  process.on('disconnect', () => process.exit(0));
} else {
  main();
}

function connect() {
  const child = fork(__filename, ['serve'], { serialization: 'advanced' });
  const waiting = [];
  child.on('message', (answer) => waiting.shift().resolve(answer));
  child.on('exit', () => { for (const each of waiting.splice(0)) each.reject(new Error('the worker has gone')); });
  const call = (payload) => new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    child.send(payload);
  });
  return { pid: child.pid, call, end: () => child.kill('SIGKILL') };
}

const now = () => Number(process.hrtime.bigint()) / 1e3;

function check(answer, payload) {
  if (answer.length !== payload.length) throw new Error('the answer is not what was sent');
}

let worker = null;
let crowd = [];

async function obey(line) {
  for (const each of crowd.splice(0)) each.end();
  const [what, ...rest] = line.split(' ');
  const [bytes, count, outstanding] = rest.map(Number);
  if (what === 'spawn') {
    const payload = Buffer.alloc(16, 1);
    const begin = now();
    const made = connect();
    check(await made.call(payload), payload);
    const took = now() - begin;
    made.end();
    return `ok ${took}`;
  }
  if (what === 'crowd') {
    for (let i = 0; i < bytes; ++i) crowd.push(connect());
    for (const each of crowd) await each.call(Buffer.alloc(16, 1));
    return `ok ${crowd.map((each) => each.pid).join(' ')}`;
  }
  worker ??= connect();
  if (what === 'worker') return `ok ${worker.pid}`;
  const payload = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; ++i) payload[i] = i * 31;
  if (!payload.equals(await worker.call(payload))) throw new Error('the answer is not what was sent');
  if (what === 'calls') {
    const times = [];
    for (let i = 0; i < count; ++i) {
      const begin = now();
      const answer = await worker.call(payload);
      times.push((now() - begin).toFixed(3));
      check(answer, payload);
    }
    return `ok ${times.join(' ')}`;
  }
  if (what === 'many') {
    let left = count;
    const chain = async () => {
      while (left-- > 0) check(await worker.call(payload), payload);
    };
    const begin = now();
    await Promise.all(Array.from({ length: outstanding }, chain));
    return `ok ${now() - begin}`;
  }
  throw new Error(`what is '${line}'?`);
}

async function main() {
  console.log(`ready Node child_process.fork\t${process.versions.node}`);
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    console.log(await obey(line).catch((error) => `error ${error.message}`));
  }
  worker?.end();
  for (const each of crowd) each.end();
}
