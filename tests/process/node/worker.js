// A child of bulkhead's for the tests: answers messages, and shows what handles arrived as.
const net = require('net');
const dgram = require('dgram');
let server;
process.on('message', (m, handle) => {
  if (m && m.do === 'exit') return process.exit(m.code);
  if (m && m.do === 'disconnect') return process.disconnect();
  if (m && m.do === 'burst') {
    for (let i = 0; i < m.count; ++i) process.send({ n: i });
    return process.exit(3);
  }
  if (m && m.do === 'give') {  // a server, one of its connections with numbers around it
    server = net.createServer((socket) => {
      process.send({ before: 1 });
      process.send({ given: 'socket' }, socket);
      process.send({ after: 1 });
    }).listen(0, '127.0.0.1', () => process.send({ given: 'server', port: server.address().port }, server));
    return;
  }
  if (m && m.do === 'give others') {  // in a folder of the test's, with a FIFO in it
    const socket = dgram.createSocket(m.type).bind(0, m.type === 'udp6' ? '::1' : '127.0.0.1', () => {
      process.send({ given: 'udp', port: socket.address().port }, socket);
      const local = net.createServer().listen(m.folder + '/socket', () => {
        process.send({ given: 'unix listener' }, local);
        const client = net.connect(m.folder + '/socket', () => process.send({ given: 'unix socket' }, client));
        process.send({ given: 'pipe' }, new net.Socket({ fd: require('fs').openSync(m.folder + '/fifo', 'r+') }));
      });
    });
    return;
  }
  if (m && m.do === 'count') return server.getConnections((e, count) => process.send({ count }));
  if (m && m.do === 'close') return server.close(() => process.send({ closed: true }));
  if (handle === undefined) return process.send({ echo: m });
  if (handle instanceof net.Server) {
    handle.on('connection', (s) => s.end('served by node'));
    return process.send({ got: 'server', msg: m });
  }
  if (handle instanceof net.Socket) {
    process.send({ got: 'socket', msg: m });
    if (m.read) return handle.on('data', (text) => process.send({ read: text.toString() }));
    return handle.end('written by node');
  }
  if (handle instanceof dgram.Socket) {
    handle.on('message', (text, from) => process.send({ datagram: text.toString() }));
    return process.send({ got: 'dgram', msg: m });
  }
  process.send({ got: typeof handle, msg: m });
});
process.send('ready');
