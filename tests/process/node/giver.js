// A child that gives its parent a connection, and stops whenever that is refused until it is told to go on.
const fs = require('fs');
const net = require('net');
process.prependListener('internalMessage', (m) => {
  if (m.cmd !== 'NODE_HANDLE_NACK') return;
  fs.writeSync(1, 'refused\n');
  fs.readSync(0, Buffer.alloc(1));
});
let socket;
process.on('message', (m) => {
  if (m.connect) socket = net.connect(m.connect, '127.0.0.1', () => process.send('connected'));
  if (!m.give) return;
  process.send('before');
  process.send('it', socket);
  process.send('after');
});
