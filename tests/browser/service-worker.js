onmessage = async ({ data, ports }) => {
  const answer = await fetch(...data).catch(() => null);
  ports[0].postMessage(!answer || answer.type === "opaque" ? null : `${answer.status} ${await answer.text()}`);
};
