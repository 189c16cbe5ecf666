// A parent that is real Node, of a program that is not told the serialization: asks it what its channel is.
const { fork } = require('child_process');
const child = fork('-u', ['NODE_CHANNEL_SERIALIZATION_MODE', process.argv[2]], { execPath: '/usr/bin/env', execArgv: [] });
child.on('message', (m) => {
  if (m.hello) return child.send({ descriptor: 1 });
  child.disconnect();
  process.stdout.write(JSON.stringify(m));
});
