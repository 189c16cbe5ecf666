// Microseconds from fork() to the child's first message, and the median round trip of 500 messages.
const { fork } = require('child_process');
const now = () => Number(process.hrtime.bigint()) / 1000;
const begin = now();
const child = fork(process.argv[2]);
let first = 0, sent = 0;
const times = [];
child.on('message', () => {
  if (!first) first = now() - begin;
  else times.push(now() - sent);
  if (times.length === 500) {
    times.sort((a, b) => a - b);
    console.log(first, times[250]);
    return child.kill('SIGKILL');
  }
  sent = now();
  child.send('0123456789abcdef');
});
