// A parent that is real Node, which passes three sockets of its server to the program named by its first argument: prints
// how many connections the server has as that drops them one by one, and when it is closed.
const { fork } = require('child_process');
const net = require('net');
const child = fork('unused', [], { execPath: process.argv[2], execArgv: [] });
const seen = [];
const server = net.createServer({ pauseOnConnect: true }, (socket) => child.send('hold', socket));
const connect = () => net.connect(server.address().port, '127.0.0.1').resume();
const drop = () => child.send('drop');
const count = (then) => server.getConnections((e, n) => { seen.push(e ? e.code : n); then(); });
const steps = [  // one for each message of the child's
  () => server.listen(0, '127.0.0.1', connect),
  connect,
  connect,
  () => count(drop),
  () => count(() => {
    server.close(() => { seen.push('closed'); child.send('and you?'); });
    child.send('closed?');
  }),
  () => { seen.push('not with two'); drop(); },
  () => { seen.push('not with one'); drop(); },
  () => {},
  (m) => { seen.push(m); child.disconnect(); },
];
child.on('message', (m) => steps.shift()(m));
child.on('exit', (code, signal) => process.stdout.write(JSON.stringify({ seen, code, signal }), () => process.exit(0)));
