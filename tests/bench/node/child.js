process.on('message', (m) => process.send(m));
process.send('ready');
