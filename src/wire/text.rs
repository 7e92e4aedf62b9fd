//! stub
#[derive(Debug)]
pub enum TextAnswer {
    Pong(String),
    Nothing,
}
#[derive(Debug)]
pub struct TextFault;
pub fn answer(payload: &[u8]) -> Result<TextAnswer, TextFault> {
    let _ = payload;
    todo!()
}
